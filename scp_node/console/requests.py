"""What handlers ask of a request: the services, the visitor, and whether he may do this."""

import hmac
from collections.abc import Callable
from typing import Annotated, cast

from fastapi import Depends
from starlette.exceptions import HTTPException
from starlette.requests import Request

from config.console import Role
from scp_node.console.access import Visitor
from scp_node.console.services import Services
from scp_node.errors import NodeError
from scp_node.jobs.user_actions import REFUSED_BY_ROLE


def services_of(request: Request) -> Services:
    """The services of this process."""
    return cast("Services", request.app.state.services)


def visitor_of(request: Request) -> Visitor:
    """Who asks; the guard has seen to it that there is somebody."""
    visitor: Visitor | None = request.state.visitor
    if visitor is None:
        raise HTTPException(401, "log in")
    return visitor


def needing(role: Role) -> Callable[[Request], Visitor]:
    """A dependency that lets nobody through below this role, and writes down who tried."""

    def visitor_with_role(request: Request) -> Visitor:
        visitor = visitor_of(request)
        if not visitor.role.may(role):
            route = request.scope.get("route")
            services_of(request).record(
                visitor,
                getattr(route, "name", "request"),
                subject=_subject(request),
                after=f"{REFUSED_BY_ROLE}{role.value}",
            )
            raise HTTPException(403, f"this needs the role {role.value}; {visitor.name} is {visitor.role.value}")
        return visitor

    return visitor_with_role


def is_own_form(visitor: Visitor, token: str) -> bool:
    """Whether a plain form was filled in on a page of this visitor's session; without a session there is no token."""
    session = visitor.session
    return session is None or hmac.compare_digest(token.encode(), session.change_token.encode())


def _subject(request: Request) -> str:
    """SOP Instance UID of the instance that a path names; empty without one. Never the path: anybody makes up paths."""
    number = str(request.path_params.get("instance_id", ""))
    try:
        return services_of(request).admin.show(number).instance.sop_instance_uid if number.isdecimal() else ""
    except NodeError:
        return ""


OpenServices = Annotated[Services, Depends(services_of)]
AnyVisitor = Annotated[Visitor, Depends(visitor_of)]
Operator = Annotated[Visitor, Depends(needing(Role.OPERATOR))]
Administrator = Annotated[Visitor, Depends(needing(Role.ADMINISTRATOR))]
