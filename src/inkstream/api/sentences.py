"""Where sentences end, found while the text is still coming.

Deliberate rules, each with its reason:

- A sentence does not begin with a lower-case letter or with a comma, so an abbreviation that is not in the
  lists below makes a chunk longer, never wrong. After a single letter or initials (``J.``, ``U.S.``) nothing
  is cut, although a sentence may end there.
- In fenced code every line is a chunk. Inline code is not cut; where its closing mark is missing it
  ends with the line, as does an open straight quote.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

import regex

LOOKBACK = 32  # how much text before a full stop decides whether it is an abbreviation's
BLANK_CHARS = 64  # how far behind a line's end further blank lines are looked for

NEWLINES = r"\r\n\x85\u2028\u2029"
NO_BREAK = r"\xa0\u2007\u202f"
BLANKS = rf"[^\S{NEWLINES}{NO_BREAK}]"
EAST_ASIAN = r"\p{Han}\p{Hiragana}\p{Katakana}ー"
OPENERS = "“‘「『（【《〈〔［｛"
CLOSERS = "”’」』）】》〉〕］｝)\\]}»›'\ufe0e\ufe0f"  # a variation selector makes an emoji of ‼
WIDE_STOPS = "。｡！？；…‼⁇⁈⁉"
CONTINUES = frozenset(",，、;:：)）]】}」』”’》〉%％–—·")

GRAPHEME = regex.compile(r"\X")
EAST_ASIAN_NEXT = regex.compile(f"[{EAST_ASIAN}{OPENERS}]")
EAST_ASIAN_BEFORE = regex.compile(f"[{EAST_ASIAN}]$")
URL_BEFORE = regex.compile(r"://\S*$")
WORD_BEFORE = regex.compile(rf"(?<![^\s(（\[“\"'‘*_{EAST_ASIAN}])[\p{{Latin}}.]*$")
ENUMERATOR = regex.compile(r"[\s>#*+\-(（]*\d{1,9}(?:\.\d{1,9})*")
INITIALS = regex.compile(r"(?:\p{Latin}{1,2}\.)*\p{Latin}")

ABBREVIATION = regex.compile(
    r"(?i)mr|mrs|ms|mx|dr|prof|st|mt|gen|col|capt|cmdr|lt|sgt|rev|hon|sen|rep|gov|pres|messrs|mme|mlle"
    r"|vs|cf|viz|resp|approx|ca|incl|excl|esp|dept|univ|assn|bros"
)
"""What is followed by what it belongs to. Those that may end a sentence (etc., Inc.) are not here."""
NUMBERED = regex.compile(
    r"(?i)no|nos|nr|figs?|eqs?|vols?|ch|chap|sec|sect|p|pp|art|ref|refs|tab|ver|v",
)
"""Abbreviations only before a number: ``No. 5`` goes on, ``No.`` does not."""


class _End(Enum):
    """By what a sentence may have ended."""

    LINE = auto()
    WIDE = auto()
    ELLIPSIS = auto()
    NARROW = auto()  # full stop, exclamation or question mark of Latin script


@dataclass(slots=True)
class _Candidate:
    """A border that what follows will confirm or not. ``before`` is the text that leads to ``mark``, at most
    ``LOOKBACK`` of its sentence."""

    by: _End
    border: int
    before: str = ""
    mark: str = ""
    is_enumerator: bool = False
    has_blank: bool = False
    blank_chars: int = 0


class _Stage(Enum):
    INLINE = auto()
    OPENING = auto()  # the first line of what is a fence unless the same line closes it
    FENCED = auto()
    CLOSING = auto()  # a line of the fence that closes it unless more than blanks follows


@dataclass(slots=True)
class _Code:
    stage: _Stage
    mark: str


class Sentences:
    """The borders of sentences. Reads lexemes; what it knows of the text behind it does not depend on where
    chunks were cut.
    """

    _LEXEME = regex.compile(
        rf"(?P<newline>\r\n?|[{NEWLINES}])|(?P<blank>{BLANKS}+)|(?P<narrow>[.!?]+)|(?P<wide>[{WIDE_STOPS}]+)"
        rf"|(?P<closer>[{CLOSERS}]+)|(?P<quote>\")|(?P<stars>\*+)|(?P<code>`+|~+)"
        rf"|(?P<plain>(?:(?!{BLANKS})[^{NEWLINES}.!?{WIDE_STOPS}{CLOSERS}\"*`~])+)"
    )
    _MAY_GROW = frozenset({"narrow", "wide", "stars", "code"})

    def __init__(self) -> None:
        self._at = 0  # how far the text has been read
        self._border = 0  # the last one found
        self._candidate: _Candidate | None = None
        self._code: _Code | None = None
        self._line_is_blank = True
        self._is_quoting = False
        self._is_starred = False

    def next(self, text: str, start: int, longest: int) -> int | None:
        while self._border <= start or text[start : self._border].isspace():
            border = self._read(text)
            if border is None:
                return None
            self._border = border
        return self._border

    def nearest(self, text: str) -> int:
        return self._candidate.border if self._candidate else len(text)

    def shift(self, count: int) -> None:
        self._at -= count
        self._border -= count
        if self._candidate:
            self._candidate.border -= count

    def _read(self, text: str) -> int | None:
        """Read on up to the next border."""
        while lexeme := self._LEXEME.match(text, self._at):
            kind, is_last = lexeme.lastgroup, lexeme.end() == len(text)
            assert kind is not None
            if (border := self._decided(text, kind, lexeme)) is not None:
                return border
            if is_last and (kind in self._MAY_GROW or lexeme[0] == "\r"):
                return None
            self._at = lexeme.end()
            if (border := self._taken(text, kind, lexeme)) is not None:
                return border
        return None

    # What follows a candidate

    def _decided(self, text: str, kind: str, lexeme: regex.Match[str]) -> int | None:
        """The candidate's border, if this lexeme confirms it."""
        candidate = self._candidate
        if candidate is None or self._extends(candidate, kind, lexeme):
            return None
        self._candidate = None
        return candidate.border if _confirms(candidate, text, lexeme[0][0]) else None

    def _extends(self, candidate: _Candidate, kind: str, lexeme: regex.Match[str]) -> bool:
        """Whether the lexeme belongs to what comes before the border."""
        if kind in ("newline", "blank"):
            beyond = candidate.by is _End.LINE and candidate.blank_chars + len(lexeme[0]) > BLANK_CHARS
            return not beyond
        if candidate.has_blank or candidate.by is _End.LINE:
            return False
        return (
            kind in ("narrow", "wide", "closer")
            or (kind == "quote" and self._is_quoting)
            or (kind == "stars" and self._is_starred)
        )

    # What a lexeme changes

    def _taken(self, text: str, kind: str, lexeme: regex.Match[str]) -> int | None:
        """Take a lexeme in. A line of fenced code is a border at once."""
        if kind == "newline":
            return self._take_newline(lexeme)
        if kind == "blank":
            self._take_blank(lexeme)
            return None
        if kind == "code":
            self._take_code(lexeme)
        elif self._code is None:
            self._take_prose(text, kind, lexeme)
        elif self._code.stage is _Stage.CLOSING:
            self._code.stage = _Stage.FENCED
        self._line_is_blank = False
        return None

    def _take_newline(self, lexeme: regex.Match[str]) -> int | None:
        self._line_is_blank, self._is_quoting, self._is_starred = True, False, False
        if self._code is not None and self._code.stage in (_Stage.OPENING, _Stage.FENCED):
            self._code.stage = _Stage.FENCED
            return lexeme.end()
        self._code = None
        earlier = self._candidate
        blank_chars = earlier.blank_chars + len(lexeme[0]) if earlier and earlier.by is _End.LINE else 0
        self._candidate = _Candidate(_End.LINE, lexeme.end(), blank_chars=blank_chars)
        return None

    def _take_blank(self, lexeme: regex.Match[str]) -> None:
        if self._candidate is None:
            return
        if self._candidate.by is _End.LINE:
            self._candidate.blank_chars += len(lexeme[0])
        else:
            self._candidate.has_blank = True
            self._candidate.border = lexeme.end()

    def _take_code(self, lexeme: regex.Match[str]) -> None:
        mark, code = lexeme[0], self._code
        self._candidate = None
        if code is None:
            self._open_code(mark)
        elif code.stage is _Stage.FENCED or code.stage is _Stage.CLOSING:
            closes = self._line_is_blank and mark.startswith(code.mark)
            code.stage = _Stage.CLOSING if closes else _Stage.FENCED
        elif mark == code.mark and mark[0] == "`":
            self._code = None
        elif mark[0] == "`" == code.mark[0]:
            code.stage = _Stage.INLINE  # the first line of a fence has no further backtick

    def _open_code(self, mark: str) -> None:
        if self._line_is_blank and len(mark) >= 3:
            self._code = _Code(_Stage.OPENING, mark)
        elif mark[0] == "`":
            self._code = _Code(_Stage.INLINE, mark)

    def _take_prose(self, text: str, kind: str, lexeme: regex.Match[str]) -> None:
        if kind in ("narrow", "wide"):
            self._propose(text, kind, lexeme)
        elif kind == "quote":
            self._is_quoting = not self._is_quoting
        elif kind == "stars":
            self._take_stars(text, lexeme)
        if self._candidate is not None:
            self._candidate.border = lexeme.end()

    def _propose(self, text: str, kind: str, lexeme: regex.Match[str]) -> None:
        mark, earlier = lexeme[0], self._candidate
        by = _End.NARROW if kind == "narrow" else _End.ELLIPSIS if set(mark) == {"…"} else _End.WIDE
        if earlier is not None and earlier.by is _End.WIDE:
            by = _End.WIDE
        begin = max(self._border, lexeme.start() - LOOKBACK, 0)
        before = text[begin : lexeme.start()]
        is_enumerator = begin == self._border and ENUMERATOR.fullmatch(before) is not None
        self._candidate = _Candidate(by, lexeme.end(), before, mark, is_enumerator)

    def _take_stars(self, text: str, lexeme: regex.Match[str]) -> None:
        """Emphasis opens before and closes behind something that is not blank; a bullet does neither."""
        if self._is_starred:
            self._is_starred = lexeme.start() == 0 or text[lexeme.start() - 1].isspace()
        else:
            self._is_starred = not text[lexeme.end()].isspace()


def _confirms(candidate: _Candidate, text: str, following: str) -> bool:
    """Whether a border lies before ``following``, the first character that is neither blank nor closing."""
    if candidate.by is _End.LINE:
        return True
    last = GRAPHEME.match(text, candidate.border - 1)
    if following in CONTINUES or last is None or last.end() > candidate.border:
        return False
    match candidate.by:
        case _End.WIDE:
            return True
        case _End.ELLIPSIS if not candidate.has_blank:
            return not following.isalnum() or _is_east_asian(following)
        case _End.NARROW if not candidate.has_blank:
            return _is_east_asian(following) and _ends_east_asian(candidate)
        case _:
            return not following.islower() and not _is_abbreviation(candidate, following)


def _is_east_asian(following: str) -> bool:
    return EAST_ASIAN_NEXT.match(following) is not None


def _ends_east_asian(candidate: _Candidate) -> bool:
    """Chinese is often typed with Latin marks and no blank; file names and versions have such dots too."""
    if candidate.mark == ".":
        return EAST_ASIAN_BEFORE.search(candidate.before) is not None
    return URL_BEFORE.search(candidate.before) is None


def _is_abbreviation(candidate: _Candidate, following: str) -> bool:
    if candidate.mark != ".":
        return False
    if candidate.is_enumerator:
        return True
    found = WORD_BEFORE.search(candidate.before)
    word = found[0] if found else ""
    if INITIALS.fullmatch(word):
        return word != "I"
    if ABBREVIATION.fullmatch(word):
        return True
    return NUMBERED.fullmatch(word) is not None and (following.isdigit() or following in "(#")
