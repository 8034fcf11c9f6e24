"""The parameters of a version."""

from __future__ import annotations

import json
from typing import Any

from .errors import ManifestError, ParametersError
from .program import current


class Parameters:
    """The parameters of a version, with defaults.

    >>> settings = Parameters(top=10, zone="UTC", api=str)

    If a parameter has a type in place of a default, it is required. Functions read the values as
    attributes (``settings.top``). While the module is loaded, the values are not known yet.
    """

    def __init__(self, **defaults: Any) -> None:
        self.__dict__["_defaults"] = defaults
        self.__dict__["_values"] = None
        for name, default in defaults.items():
            if not isinstance(default, type) and _schema_type(default) is None:
                raise ManifestError(f"the parameter `{name}={default!r}` is not JSON")
        program = current()
        if program.parameters is not None:
            raise ManifestError("the projection has Parameters(…) twice")
        program.parameters = self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        values = self.__dict__["_values"]
        if values is None:
            raise ParametersError(
                f"parameters: `{name}` is not known while the module is loaded; read it in a "
                "function"
            )
        if name not in values:
            raise AttributeError(f"there is no parameter {name!r}")
        return values[name]

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("parameters cannot be changed")

    def _take(self, text: str) -> None:
        try:
            given = json.loads(text) if text else {}
        except ValueError as error:
            raise ParametersError(f"parameters: {error}") from None
        if given is None:
            given = {}
        if not isinstance(given, dict):
            raise ParametersError(f"parameters: `{text}` is not a JSON object")
        defaults = self.__dict__["_defaults"]
        for name in given:
            if name not in defaults:
                known = ", ".join(f"`{it}`" for it in defaults)
                raise ParametersError(f"parameters: `{name}` is unknown; there are {known}")
        values = {}
        for name, default in defaults.items():
            required = isinstance(default, type)
            if name not in given:
                if required:
                    raise ParametersError(f"parameters: `{name}` is missing")
                values[name] = default
                continue
            wanted = default if required else type(default)
            value = given[name]
            if wanted is float and type(value) is int:
                value = float(value)
            if default is not None and type(value) is not wanted:
                raise ParametersError(
                    f"parameters: `{name}` is {json.dumps(value)}, which is not "
                    f"{_SCHEMA_TYPES.get(wanted, wanted.__name__)}"
                )
            values[name] = value
        self.__dict__["_values"] = values

    def schema(self) -> str:
        """The JSON Schema of the parameters."""
        properties, required = {}, []
        for name, default in self.__dict__["_defaults"].items():
            if isinstance(default, type):
                properties[name] = {"type": _SCHEMA_TYPES.get(default, "object")}
                required.append(name)
            elif default is None:
                properties[name] = {}
            else:
                properties[name] = {"type": _schema_type(default), "default": default}
        schema: dict[str, Any] = {"type": "object", "properties": properties}
        if required:
            schema["required"] = required
        schema["additionalProperties"] = False
        return json.dumps(schema)


_SCHEMA_TYPES: dict[type, str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}


def _schema_type(value: Any) -> "str | None":
    return "null" if value is None else _SCHEMA_TYPES.get(type(value))
