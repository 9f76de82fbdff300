"""What is asked and answered in the pictures, in both languages."""

# ruff: noqa: E501 - prose is not folded

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Language = Literal["en", "zh"]


@dataclass(frozen=True, slots=True)
class Texts:
    """``lore`` is an answer with all that Markdown has, ``prose`` one of paragraphs only."""

    locale: str
    question: str
    lore: str
    follow_up: str
    prose: str
    thinking: str
    cut: str
    draft: str
    titles: tuple[str, ...]


ENGLISH = Texts(
    locale="en-GB",
    question="Why does ink spread on some papers and stay crisp on others?",
    lore="""\
Because paper is a sponge with a skin. How far a line spreads depends on how open the sponge is, and on how \
well the skin has been **sized**.

## What happens in the first second

1. The drop touches the surface and *wets* it.
2. Capillaries between the fibres draw it in.
3. Water goes on travelling; most of the pigment is caught early.

How far it travels grows with the square root of time. Lucas and Washburn wrote it down a century ago:

$$
L(t) = \\sqrt{\\frac{\\gamma\\, r \\cos\\theta}{2\\eta}\\, t}
$$

Here $r$ is the radius of a pore and $\\eta$ the viscosity of the ink.

| Paper | Sizing | A line of 0.5 mm becomes |
|:--|:--|--:|
| Raw xuan | none | 2.4 mm |
| Half-ripe xuan | a little alum | 1.1 mm |
| Laid writing paper | gelatine | 0.6 mm |
| Coated | kaolin | 0.5 mm |

> The brush has gone by, and the ink is still walking.

To see it for yourself, photograph a line every second and measure it:

```python
from math import sqrt

def spread(radius: float, seconds: float, *, tension=0.072, viscosity=1.3e-3) -> float:
    \"\"\"How far ink has travelled, in metres.\"\"\"
    return sqrt(tension * radius * seconds / (2 * viscosity))

print(f"{spread(2e-6, 1) * 1000:.1f} mm")  # 7.4 mm
```

- [x] Unsized paper, thin ink
- [ ] The same paper, brushed with alum

More about sizing is in the [paper conservation wiki](https://www.conservation-wiki.com/wiki/Sizing).""",
    follow_up="And which one should I buy to learn calligraphy?",
    prose="""\
Start with half-ripe xuan. It forgives a slow hand: a stroke widens a little, so you see your hesitation, but it \
does not bloom into a cloud while you think about the next one.

Buy it in small sheets, practise on the rough side first, and keep a few sheets of raw xuan for the day when you \
want the ink to do something that you did not plan. For drafts, plain machine-made *maobian* costs next to nothing \
and behaves well enough to learn the order of strokes.

Whatever you choose, stay with it for a month. Paper is half of the brush, and a hand learns slowly what it is \
leaning on.""",
    thinking="""\
The reader is a beginner, so the answer should name one paper and say why. Raw xuan blooms too fast for slow \
strokes; sized paper hides mistakes. Half-ripe is the compromise. Mention a cheap paper for drafts.""",
    cut="""\
A short history of paper, then. It begins in the workshops of Luoyang, where bark, hemp, rags and fishing nets were \
beaten to a pulp and lifted from the vat on a screen of""",
    draft="How much water belongs in the ink if the paper is",
    titles=(
        "A week of breakfasts without sugar",
        "Explain monads to a carpenter",
        "Letter to the landlord about the boiler",
        "Why is my SQL query slow?",
        "Packing list for Iceland in March",
        "Names for a grey cat",
        "Difference between a fjord and a firth",
    ),
)

CHINESE = Texts(
    locale="zh-CN",
    question="为什么墨在有的纸上会洇开，在有的纸上却很清晰？",
    lore="""\
因为纸像一块有皮的海绵。一笔能洇多远，要看海绵有多疏松，也要看这层皮**施胶**施得好不好。

## 第一秒里发生了什么

1. 墨滴接触纸面，先把它*润湿*。
2. 纤维之间的毛细孔把墨吸进去。
3. 水继续往前走，大部分墨粒早早就被留住了。

走过的距离与时间的平方根成正比，Lucas 和 Washburn 一百年前就写下了这个式子：

$$
L(t) = \\sqrt{\\frac{\\gamma\\, r \\cos\\theta}{2\\eta}\\, t}
$$

其中 $r$ 是孔的半径，$\\eta$ 是墨的黏度。

| 纸 | 施胶 | 0.5 毫米的线变成 |
|:--|:--|--:|
| 生宣 | 无 | 2.4 毫米 |
| 半熟宣 | 少许矾 | 1.1 毫米 |
| 书写纸 | 明胶 | 0.6 毫米 |
| 铜版纸 | 高岭土 | 0.5 毫米 |

> 笔已经过去了，墨还在走。

想亲眼看看，可以每秒拍一张照片，再量一量：

```python
from math import sqrt

def spread(radius: float, seconds: float, *, tension=0.072, viscosity=1.3e-3) -> float:
    \"\"\"墨走了多远，单位是米。\"\"\"
    return sqrt(tension * radius * seconds / (2 * viscosity))

print(f"{spread(2e-6, 1) * 1000:.1f} 毫米")  # 7.4 毫米
```

- [x] 生宣，淡墨
- [ ] 同一张纸，刷过矾水

关于施胶，可以读读[纸张保护维基](https://www.conservation-wiki.com/wiki/Sizing)。""",
    follow_up="那初学书法该买哪一种呢？",
    prose="""\
先用半熟宣。它容得下慢手：笔画会稍稍变宽，犹豫看得见，却不会在你想下一笔的时候洇成一团。

买小张的，先写粗糙的那一面；再留几张生宣，等哪天想让墨自己做主时用。打草稿用机制毛边纸就好，便宜，练笔顺也够了。

不论选哪种，先写满一个月再换。纸是半支笔，手要慢慢才知道自己靠着什么。""",
    thinking="""\
提问的是初学者，应当只推荐一种纸，并说明理由。生宣洇得太快，不适合慢笔；熟宣又会掩盖毛病。半熟宣折中。再提一种便宜的草稿纸。""",
    cut="""\
那就说一段纸的简史。故事从洛阳的作坊开始，树皮、麻头、破布和渔网在那里被捣成浆，再用帘子从槽里抄起来，一张一张地贴在""",
    draft="如果是生宣，墨里要兑多少",
    titles=(
        "不加糖的一周早餐",
        "给木匠讲明白什么是单子",
        "写给房东的信：锅炉坏了",
        "这条 SQL 为什么这么慢？",
        "三月去冰岛要带什么",
        "给一只灰猫起名字",
        "“的、地、得”怎么分",
    ),
)

TEXTS: dict[Language, Texts] = {"en": ENGLISH, "zh": CHINESE}
