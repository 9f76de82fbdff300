"""What a streaming server gives its readers, and what it costs: ``inkstream bench URL``, or from code

    result = await measure(Plan(url="http://127.0.0.1:8000"))

The load runs in processes of its own, so that what measures is neither the server nor the caller. It asks any
OpenAI-compatible server, the article's ``/stream`` and the native API, and knows nothing of what is behind.
"""

from inkstream.bench.measure import Progress, measure
from inkstream.bench.plan import Plan
from inkstream.bench.result import Figures, Result

__all__ = ["Figures", "Plan", "Progress", "Result", "measure"]
