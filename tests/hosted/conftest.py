"""Nothing is hosted on releases that are refused."""

import pytest

from alignzoo.settings import UserError
from alignzoo_plugins.trl.base import check_versions


@pytest.fixture(autouse=True)
def hostable() -> None:
    try:
        check_versions("what is tested here")
    except UserError as refusal:
        pytest.skip(str(refusal))
