// What the theme and the gallery leave without a name or out of reach of the keyboard.
addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll("article table")) {
    if (table.scrollWidth > table.clientWidth || table.parentElement.scrollWidth > table.parentElement.clientWidth) {
      table.tabIndex = 0;
    }
  }
  for (const link of document.querySelectorAll(".sphx-glr-thumbcontainer a")) {
    const title = link.closest(".sphx-glr-thumbcontainer").querySelector(".sphx-glr-thumbnail-title");
    if (title) link.setAttribute("aria-label", title.textContent.trim());
  }
  for (const summary of document.querySelectorAll("summary")) {
    if (!summary.textContent.trim()) summary.setAttribute("aria-label", "Pages of this section");
  }
});
