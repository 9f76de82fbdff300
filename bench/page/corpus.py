"""Answers as models write them: prose, code, tables, mathematics and Chinese, in turn."""

from __future__ import annotations

from itertools import count

CHARACTERS_PER_TOKEN = 2.5  # of the scripted engine, whose tokens have one to four characters

PROSE = """## {n}. What the river keeps

The river keeps *its own* time, and **nothing is lost**: a token, once seen, stays seen. It was measured
{n} times, with `stream --follow` and without; the [notes](https://example.org/{n}) say how, and
what was left out.

- one reader, who waits
- two readers, who do not
  - and a third, who came late

> Nothing is said twice, e.g. 3.14 is not two sentences.

"""
CODE = """```python
async def follow(run: str, after: int = {n}) -> AsyncIterator[Event]:
    \"\"\"Every event exactly once.\"\"\"
    async for event in log.read(run, after):
        if event.seq <= after:  # it was said before
            continue
        after = event.seq
        yield event
```

"""
TABLE = """| run | tokens | seconds | state |
|----:|-------:|--------:|:------|
| {n} | 1,234 | 5.6 | done |
| 2 | 20,000 | 100.0 | **running** |
| 3 | 7 | 0.1 | `failed` |

"""
MATHS = """The lag is at most $D = k \\cdot g_{{max}} + f$, and over {n} arrivals

$$
\\sum_{{i=1}}^{{n}} \\frac{{w_i}}{{t_i - t_0}} \\le \\int_0^T r(t)\\,dt
$$

"""
CHINESE = """### 第{n}节

墨水在纸上慢慢散开。**注意：**「流式」是说：一个字一个字地来，不丢、不重；价格为 ¥1,234.50，比昨天便宜 3%！
读者不必等待，因为每个字都在它到来的时候出现，句子之间稍作停顿，就像有人在写。

"""

ENGLISH = (
    "The river keeps its own time. Nothing is lost, nothing is said twice; a token, once seen, stays seen. "
)
HAN = "墨水在纸上慢慢散开。「流式」是说：一个字一个字地来，不丢、不重。价格为一千二百元，比昨天便宜！"


def mixed(tokens: int) -> str:
    """About so many tokens of everything."""
    length = int(tokens * CHARACTERS_PER_TOKEN)
    parts: list[str] = []
    for number in count(1):
        parts += [section.format(n=number) for section in (PROSE, CODE, TABLE, MATHS, CHINESE)]
        if sum(map(len, parts)) >= length:
            break
    return "".join(parts)[:length]


def plain(sentence: str, tokens: int) -> str:
    length = int(tokens * CHARACTERS_PER_TOKEN)
    return (sentence * (length // len(sentence) + 1))[:length]


def counted(tokens: int) -> str:
    """One paragraph in which each word is another, so that what is lost or doubled shows."""
    length = int(tokens * CHARACTERS_PER_TOKEN)
    return " ".join(f"word{number}" for number in range(length // 8))[:length].strip()
