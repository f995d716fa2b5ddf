"""Options of several commands, written once: as the fields of a dataclass."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

Command = Callable[..., None]


def with_options(shared: type[Any], **defaults: object) -> Callable[[Command], Command]:
    """Give a command the fields of a dataclass as options, and hand them to it, first of all.

    `defaults` replace those of the fields. The first two fields come before the command's own
    options, and the others after them.
    """

    def decorate(command: Command) -> Command:
        fields = [_parameter(field, defaults) for field in dataclasses.fields(shared)]
        own = list(inspect.signature(command).parameters.values())[1:]
        own = [parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in own]
        signature = inspect.Signature([*fields[:2], *own, *fields[2:]])

        @functools.wraps(command)
        def run(**values: object) -> None:
            asked = {field.name: values.pop(field.name) for field in fields}
            command(shared(**asked), **values)

        run.__signature__ = signature  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
        return run

    return decorate


def _parameter(
    field: "dataclasses.Field[object]", defaults: dict[str, object]
) -> inspect.Parameter:
    default = defaults.get(field.name, field.default)
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if default is dataclasses.MISSING else default,
        annotation=field.type,
    )
