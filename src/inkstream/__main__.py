"""The command, from the first line that Python runs of it."""

from __future__ import annotations


def main() -> int:
    try:
        from inkstream import cli  # noqa: PLC0415  # Ctrl-C may come in the quarter of a second that this takes

        return cli.main()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
