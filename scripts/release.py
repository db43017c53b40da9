"""Releases the version of this tree (docs/internals/releasing.md): checks, builds, and with ``--repository`` uploads and tags."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

from wheels import PROCESSORS, ROOT, ReleaseError, build, check, version


def check_ready(number: str) -> None:
    """Raises ReleaseError where the clone, or its changelog, is not ready for the version ``number``."""
    if changes := _git("status", "--porcelain"):
        raise ReleaseError(f"commit first, a release is what a commit has; these files differ:\n{changes}")
    if _git("tag", "--list", f"v{number}"):
        raise ReleaseError(f"v{number} was released already: raise the version in ticketsmith/version.py.")
    sections = _sections((ROOT / "CHANGELOG.md").read_text())
    if not sections.get(number):
        raise ReleaseError(
            f"CHANGELOG.md has no section `## [{number}] - <date>`, or an empty one: rename [Unreleased], and begin a new one."
        )
    if sections.get("Unreleased"):
        raise ReleaseError(f"CHANGELOG.md: what stands under [Unreleased] belongs to [{number}], or to a later commit.")


def _sections(changelog: str) -> dict[str, str]:
    """What stands under each version of a changelog; of a released one only where its heading has a date."""
    parts = re.split(r"^## \[(.+?)\](.*)$", changelog, flags=re.MULTILINE)[1:]
    return {
        name: re.sub(r"^###.*$", "", text, flags=re.MULTILINE).strip()
        for name, date, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
        if name == "Unreleased" or re.fullmatch(r" - \d{4}-\d\d-\d\d", date)
    }


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def release(output: Path, repository: str | None) -> None:
    """Builds and checks everything; uploads it to ``repository``, as twine knows it, and tags the commit."""
    number = version()
    check_ready(number)
    files = build(output, (*PROCESSORS, "any"))
    check(files)
    if repository is None:
        print(f"{number} is ready in {output}, and was published nowhere: make release REPOSITORY=<as in ~/.pypirc>")
        return
    upload = [sys.executable, "-m", "twine", "upload", "--skip-existing", "--repository", repository, *map(str, files)]
    if subprocess.run(upload).returncode:
        raise ReleaseError("the upload failed; the same command goes on.")
    _git("tag", f"v{number}")
    print(f"{number} is published. Now: git push origin v{number}")


def main() -> None:
    """``python scripts/release.py [--repository NAME | --check]``."""
    parser = argparse.ArgumentParser(description="Checks, builds and publishes the version of this tree.")
    parser.add_argument("--output", type=Path, default=ROOT / "dist")
    parser.add_argument("--repository", help="where to: a name in ~/.pypirc; without it nothing is published")
    parser.add_argument("--check", action="store_true", help="only tell whether clone and changelog are ready")
    options = parser.parse_args()
    try:
        if options.check:
            check_ready(version())
        else:
            release(options.output, options.repository)
    except ReleaseError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
