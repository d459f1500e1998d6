"""F4: protection is not in an agent's way."""

from __future__ import annotations

from tests.attacks.protect.day import day
from tests.attacks.protect.folder import Folder
from tests.attacks.protect.guests import Namespaces


def test_an_agents_day(folder: Folder, shared_folder: Namespaces) -> None:
    day(folder, shared_folder)
