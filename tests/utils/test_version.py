import pyg_nas_np
from pyg_nas_np.utils.version import VERSION


def test_the_package_has_this_version():
    assert pyg_nas_np.__version__ == VERSION
