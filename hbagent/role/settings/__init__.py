"""What a daemon is told by its config file: frozen settings, or every problem of the file at once.

`load` makes the settings and knows what must fit together; `schema` says what each file may hold; `document` walks
one parsed file and notes what is wrong; `values` reads single values; `lines` finds the line of each; `problems`
puts it into words.
"""

from .load import (
    AgentSettings,
    AnySettings,
    Endpoint,
    LeaderSettings,
    Logging,
    RootSettings,
    Security,
    Settings,
    Web,
    load_agent,
    load_any,
    load_leader,
    load_root,
)
from .operators import Operator, OperatorSettings
from .problems import ConfigError, Problem
from .rotation import Rotation

__all__ = [
    "AgentSettings",
    "AnySettings",
    "ConfigError",
    "Endpoint",
    "LeaderSettings",
    "Logging",
    "Operator",
    "OperatorSettings",
    "Problem",
    "RootSettings",
    "Rotation",
    "Security",
    "Settings",
    "Web",
    "load_agent",
    "load_any",
    "load_leader",
    "load_root",
]
