"""`python -m tests.contract.regenerate` writes the golden files anew; look at the difference before committing it."""

from __future__ import annotations

from tests.contract.generated import FOLDER, golden_files


def main() -> None:
    files = golden_files()
    FOLDER.mkdir(exist_ok=True)
    for stale in FOLDER.iterdir():
        if stale.name not in files:
            stale.unlink()
    for name, text in files.items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
