"""A server with OpenAI's interface around a model.

>>> from oarlock.llm.server import Limits, Server, ServerConfig, create_app
>>> app = create_app(service, config=ServerConfig(limits=Limits(concurrency=32)))
>>> Server(app, port=8000).run()
"""

from oarlock.llm.server.app import ServerConfig, create_app
from oarlock.llm.server.keys import ApiKeys
from oarlock.llm.server.limits import Limits
from oarlock.llm.server.run import Server, listeners

__all__ = ["ApiKeys", "Limits", "Server", "ServerConfig", "create_app", "listeners"]
