# PLACEHOLDER: another helper writes this file on branch `setconv-modules`. See NOTE_FROM_LEAD.md. Do not commit.
