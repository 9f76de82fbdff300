"""HTTP: the native API, the article's endpoint, OpenAI's, the page. Only this package knows FastAPI."""

from inkstream.api.app import create_app
from inkstream.api.services import Services, open_services

__all__ = ["Services", "create_app", "open_services"]
