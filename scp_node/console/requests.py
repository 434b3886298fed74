"""What handlers ask of a request: the services, the visitor, and whether he may do this."""

from collections.abc import Callable
from typing import Annotated, cast

from fastapi import Depends
from starlette.exceptions import HTTPException
from starlette.requests import Request

from config.console import Role
from scp_node.console.access import Visitor
from scp_node.console.services import Services


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
    """A dependency that lets nobody through below this role."""

    def visitor_with_role(request: Request) -> Visitor:
        visitor = visitor_of(request)
        if not visitor.role.may(role):
            raise HTTPException(403, f"this needs the role {role.value}; {visitor.name} is {visitor.role.value}")
        return visitor

    return visitor_with_role


OpenServices = Annotated[Services, Depends(services_of)]
AnyVisitor = Annotated[Visitor, Depends(visitor_of)]
Operator = Annotated[Visitor, Depends(needing(Role.OPERATOR))]
Administrator = Annotated[Visitor, Depends(needing(Role.ADMINISTRATOR))]
