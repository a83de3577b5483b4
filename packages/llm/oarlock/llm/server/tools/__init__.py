"""Function calling: which functions a model may call, and its calls in the text that it writes."""

from oarlock.llm.server.tools.events import CallArguments, CallStart, Content, Event, Reader
from oarlock.llm.server.tools.plan import ToolPlan, plan_tools
from oarlock.llm.server.tools.styles import STYLES, ToolStyle, detect_style

__all__ = [
    "STYLES",
    "CallArguments",
    "CallStart",
    "Content",
    "Event",
    "Reader",
    "ToolPlan",
    "ToolStyle",
    "detect_style",
    "plan_tools",
]
