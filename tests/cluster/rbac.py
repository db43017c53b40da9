"""Who may do what: tokens of service accounts, roles and their bindings, 403 in the server's words.

Requests without a token are the administrator's.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from tests.cluster.resources import ROLE_BINDINGS, ROLES, SERVICE_ACCOUNTS, ApiError, Object, Resource
from tests.cluster.storage import Storage

ADMIN = "kubernetes-admin"


@dataclass
class Authority:
    """Gives tokens, and judges requests that carry one."""

    storage: Storage
    _users: dict[str, str] = field(default_factory=dict)

    def token(self, namespace: str, account: str) -> str:
        """Of a service account that exists. Raises ApiError 404."""
        self.storage.get(SERVICE_ACCOUNTS, namespace, account)
        token = secrets.token_urlsafe(24)
        self._users[token] = f"system:serviceaccount:{namespace}:{account}"
        return token

    def user(self, header: str | None) -> str:
        """Raises ApiError 401 for a token that nobody was given."""
        if not header:
            return ADMIN
        user = self._users.get(header.removeprefix("Bearer ").strip())
        if user is None:
            raise ApiError(401, "Unauthorized", "Unauthorized")
        return user

    def check(self, user: str, verb: str, resource: Resource, sub: str, namespace: str) -> None:
        """Raises ApiError 403."""
        what = f"{resource.plural}/{sub}" if sub else resource.plural
        if user == ADMIN or any(_covers(rule, verb, resource.group, what) for rule in self._rules(user, namespace)):
            return
        message = f'{resource.qualified} is forbidden: User "{user}" cannot {verb} resource "{what}" in API group '
        message += f'"{resource.group}" in the namespace "{namespace}"'
        raise ApiError(403, "Forbidden", message)

    def _rules(self, user: str, namespace: str) -> list[Object]:
        rules: list[Object] = []
        for binding in self.storage.list(ROLE_BINDINGS, namespace):
            names = {
                f"system:serviceaccount:{one.get('namespace', namespace)}:{one['name']}" for one in binding["subjects"]
            }
            if user in names:
                rules += (self.storage.find(ROLES, namespace, binding["roleRef"]["name"]) or {}).get("rules") or []
        return rules


def _covers(rule: Object, verb: str, group: str, what: str) -> bool:
    wanted = (("verbs", verb), ("apiGroups", group), ("resources", what))
    return all({"*", value} & set(rule.get(name) or []) for name, value in wanted)
