"""A bounded client that puts load on a server and checks every answer.

>>> from oarlock.llm.server.load import LoadPlan, run
>>> report = run(LoadPlan(url="http://127.0.0.1:8000", model="stories260K", duration_s=30))
>>> print(report)
>>> report.save("load.json"), report.plot("load.png")
"""

from oarlock.llm.server.load.plan import LoadPlan
from oarlock.llm.server.load.report import LoadReport
from oarlock.llm.server.load.runner import run

__all__ = ["LoadPlan", "LoadReport", "run"]
