"""What no tracked file may say."""

from __future__ import annotations

import re

from tests.shape.repository import ROOT, text, tracked

# Put together here, so that this file does not name them.
DOT = r"\."
INDEX_HOSTS = re.compile(
    rf"\bpypi{DOT}org|pythonhosted{DOT}org|npmjs{DOT}(?:org|com)|deb{DOT}debian|crates{DOT}io", re.IGNORECASE
)
SLASH = "/"
MACHINE_PATHS = re.compile(rf"(?<![\w.$}}~/-]){SLASH}(?:work|farm|root|home/\w+|Users/\w+){SLASH}[\w.]")
# The cache of an image's build is a path in that build.
IN_IMAGES = re.compile(r"^.*--mount=type=cache.*$", re.MULTILINE)


def _findings(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}: {found.group()}"
        for path in tracked()
        for found in pattern.finditer(IN_IMAGES.sub("", text(path)))
    ]


def test_no_file_names_a_package_index() -> None:
    assert not _findings(INDEX_HOSTS)


def test_no_file_holds_a_path_of_a_machine() -> None:
    assert not _findings(MACHINE_PATHS)


def test_the_lock_has_a_hash_for_everything_and_no_address() -> None:
    lock = text(ROOT / "requirements.lock")
    packages = re.split(r"\n(?=\S)", lock.strip())
    assert len(packages) > 80
    assert not [package.splitlines()[0] for package in packages if "--hash=sha256:" not in package]
    assert "://" not in lock
    assert not [path for path in tracked() if path.name == "uv.lock"]
