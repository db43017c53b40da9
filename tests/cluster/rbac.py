"""Who may do what: tokens of service accounts, roles and their bindings, 403 in the server's words.

Requests without a token are the administrator's: ``kubectl`` sends no token over plain HTTP.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from tests.cluster.resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    ROLE_BINDINGS,
    ROLES,
    SERVICE_ACCOUNTS,
    ApiError,
    Object,
    Resource,
    details_of,
)
from tests.cluster.storage import Storage


@dataclass(frozen=True)
class User:
    name: str
    groups: tuple[str, ...] = ()

    @property
    def is_admin(self) -> bool:
        return "system:masters" in self.groups


ADMIN = User("kubernetes-admin", ("system:masters", "system:authenticated"))
CONTROLLER = User("system:kube-controller-manager", ("system:masters",))


@dataclass
class Authority:
    """Gives tokens, and judges requests that carry one."""

    storage: Storage
    _tokens: dict[str, User] = field(default_factory=dict)

    def token(self, namespace: str, account: str) -> str:
        """Of a service account that exists. Raises ApiError 404."""
        self.storage.get(SERVICE_ACCOUNTS, namespace, account)
        token = secrets.token_urlsafe(24)
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
        self._tokens[token] = User(f"system:serviceaccount:{namespace}:{account}", groups)
        return token

    def user(self, header: str | None) -> User:
        """Raises ApiError 401 for a token that is not known."""
        if not header:
            return ADMIN
        user = self._tokens.get(header.removeprefix("Bearer ").strip())
        if user is None:
            raise ApiError(401, "Unauthorized", "Unauthorized")
        return user

    def check(self, user: User, verb: str, resource: Resource, sub: str, namespace: str, name: str) -> None:
        """Raises ApiError 403."""
        if self.allows(user, verb, resource.group, resource.plural, sub, namespace, name):
            return
        what = f"{resource.plural}/{sub}" if sub else resource.plural
        where = f' in the namespace "{namespace}"' if namespace else " at the cluster scope"
        about = f' "{name}"' if name else ""
        group = f".{resource.group}" if resource.group else ""
        message = (
            f'{resource.plural}{group}{about} is forbidden: User "{user.name}" cannot {verb} resource "{what}" in API group '
            f'"{resource.group}"{where}'
        )
        raise ApiError(403, "Forbidden", message, details_of(resource, name))

    def allows(self, user: User, verb: str, group: str, plural: str, sub: str, namespace: str, name: str) -> bool:
        if user.is_admin or plural == "selfsubjectaccessreviews":
            return True
        what = f"{plural}/{sub}" if sub else plural
        return any(_covers(rule, verb, group, what, name) for rule in self._rules(user, namespace))

    def _rules(self, user: User, namespace: str) -> list[Object]:
        rules: list[Object] = []
        for kind, where in ((CLUSTER_ROLE_BINDINGS, ""), (ROLE_BINDINGS, namespace)):
            if kind is ROLE_BINDINGS and not namespace:
                continue
            for binding in self.storage.list(kind, where):
                if any(_is(subject, user, namespace) for subject in binding.get("subjects") or []):
                    reference = binding["roleRef"]
                    role = (
                        self.storage.find(ROLES, namespace, reference["name"])
                        if reference["kind"] == "Role"
                        else self.storage.find(CLUSTER_ROLES, "", reference["name"])
                    )
                    rules += (role or {}).get("rules") or []
        return rules


def _is(subject: Object, user: User, namespace: str) -> bool:
    if subject["kind"] == "ServiceAccount":
        return user.name == f"system:serviceaccount:{subject.get('namespace', namespace)}:{subject['name']}"
    return subject["name"] == user.name if subject["kind"] == "User" else subject["name"] in user.groups


def _covers(rule: Object, verb: str, group: str, what: str, name: str) -> bool:
    def has(field_name: str, value: str) -> bool:
        return bool({"*", value} & set(rule.get(field_name) or []))

    if not (has("verbs", verb) and has("apiGroups", group) and has("resources", what)):
        return False
    names = rule.get("resourceNames")
    return not names or name in names
