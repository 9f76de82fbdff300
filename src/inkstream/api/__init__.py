"""HTTP: the native API, the article's endpoint, OpenAI's, the page. Only this package knows FastAPI."""

from inkstream.api.app import create_app

__all__ = ["create_app"]
