"""What NetworkPolicies allow, by the rules of their documentation: policies add up, and what none allows is denied."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

Labels = Mapping[str, str]


def egress(policies: Sequence[Any], pod: Labels, address: str, port: int, protocol: str = "TCP") -> bool:
    """Whether a pod may send to an address outside of the cluster."""
    rules = _rules(policies, pod, "Egress", "egress")
    if rules is None:
        return True
    return any(_port(rule, port, protocol) and _block(rule.get("to"), address) for rule in rules)


def egress_to_pod(
    policies: Sequence[Any], pod: Labels, namespace: Labels, other: Labels, port: int, protocol: str = "TCP"
) -> bool:
    """Whether a pod may send to another pod, given that pod's labels and those of its namespace."""
    rules = _rules(policies, pod, "Egress", "egress")
    if rules is None:
        return True
    return any(_port(rule, port, protocol) and _peer(rule.get("to"), namespace, other) for rule in rules)


def ingress(policies: Sequence[Any], pod: Labels, namespace: Labels, other: Labels, port: int) -> bool:
    """Whether another pod may send to a pod."""
    rules = _rules(policies, pod, "Ingress", "ingress")
    if rules is None:
        return True
    return any(_port(rule, port, "TCP") and _peer(rule.get("from"), namespace, other) for rule in rules)


def _rules(policies: Sequence[Any], pod: Labels, direction: str, field: str) -> list[Any] | None:
    """The rules that hold for a pod; None when no policy selects it, and so all is allowed."""
    mine = [
        p["spec"] for p in policies if direction in p["spec"]["policyTypes"] and _selects(p["spec"]["podSelector"], pod)
    ]
    return [rule for spec in mine for rule in spec.get(field, [])] if mine else None


def _port(rule: Any, port: int, protocol: str) -> bool:
    ports = rule.get("ports")
    return not ports or any(p.get("port", port) == port and p.get("protocol", "TCP") == protocol for p in ports)


def _block(peers: Any, address: str) -> bool:
    if not peers:
        return True
    return any(
        ipaddress.ip_address(address) in ipaddress.ip_network(block["cidr"])
        and not any(ipaddress.ip_address(address) in ipaddress.ip_network(out) for out in block.get("except", []))
        for block in (peer["ipBlock"] for peer in peers if "ipBlock" in peer)
    )


def _peer(peers: Any, namespace: Labels, other: Labels) -> bool:
    if not peers:
        return True
    own = {"kubernetes.io/metadata.name": "ticketsmith"}  # a peer without a namespace is one of the policy's own
    return any(
        (_selects(peer["namespaceSelector"], namespace) if "namespaceSelector" in peer else namespace == own)
        and _selects(peer.get("podSelector", {}), other)
        for peer in peers
        if "ipBlock" not in peer
    )


def _selects(selector: Any, labels: Labels) -> bool:
    assert set(selector) <= {"matchLabels"}, "teach this function matchExpressions"
    return all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items())
