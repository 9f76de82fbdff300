"""Prints docs/settings.md: every setting with its default, in English and Chinese."""

from __future__ import annotations

from dataclasses import Field
from typing import Any

from inkstream.config import env_name
from inkstream.flags import flag_of, sections, shown_default

HEAD = """\
# Settings · 设置

A value comes from the command line, else the environment, else `inkstream.toml` in the working folder, else
the default. A malformed value stops the start and is named, and so does an unknown name in the file; a
variable with one is passed over, and `inkstream doctor` points it out. `INKSTREAM_LANG` (`en` or `zh`) sets
the console's language and comes from the environment alone. A model that an admin has [chosen while the
server ran](models.md#another-model-while-the-server-runs) takes the place of `INKSTREAM_MODEL`, not of
`--model`.

取值的优先顺序：命令行、环境变量、工作目录中的 `inkstream.toml`、默认值。取值有误时拒绝启动，并指出是哪一项；
文件中有未知名称时也拒绝启动；名称未知的环境变量会被忽略，由 `inkstream doctor` 指出。
`INKSTREAM_LANG`（`en` 或 `zh`）设定控制台语言，只能用环境变量设置。管理员在服务器运行时选定的模型
优先于 `INKSTREAM_MODEL`，但不优先于命令行的 `--model`：见
[更换模型](models.md#another-model-while-the-server-runs)。

```
inkstream serve --port 8080
INKSTREAM_PORT=8080 make serve
```

```toml
# inkstream.toml
port = 8080
hosts = ["chat.example.org"]
```
"""

COLUMNS = """\
| flag · 选项 | environment · 环境变量 | default · 默认值 | |
|---|---|---|---|"""


def page() -> str:
    parts = [HEAD]
    for section, settings in sections():
        parts.append(f"\n## {section.en} · {section.zh}\n\n{COLUMNS}\n" + "".join(map(row, settings)))
    return "".join(parts) + "\nMade from `src/inkstream/config.py` by `make docs`.\n"


def row(setting: Field[Any]) -> str:
    text = f"{setting.metadata['en']}<br>{setting.metadata['zh']}"
    if setting.metadata["choices"]:
        text += "<br>" + ", ".join(f"`{choice}`" for choice in setting.metadata["choices"])
    return f"| `{flag_of(setting.name)}` | `{env_name(setting.name)}` | {default(setting)} | {text} |\n"


def default(setting: Field[Any]) -> str:
    if setting.name == "data_dir":
        return "the user's data folder · 用户数据目录"
    shown = shown_default(setting)
    return f"`{shown}`" if shown else "–"


if __name__ == "__main__":
    print(page(), end="")
