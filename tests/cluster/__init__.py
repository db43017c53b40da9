"""A Kubernetes cluster in one process, for tests: pods are real processes, and anything may fail at any moment.

What it is for: what no recorded answer can show. A Job is followed from its submission to its end while pods, nodes, the
API server and the network fail in the middle, within seconds. What the server takes is not its business: the Jobs and
objects that TicketSmith makes are validated against the published schemas in ``tests/execute/kubernetes/test_manifests.py``
and ``tests/deploy``; here only Jobs pass the same schema, and a handful of rules that a target file can break.

It serves what the product asks of a cluster (``ticketsmith/execute/kubernetes/cluster.py``): Jobs by server-side apply,
merge patch, read, list and delete; lists of pods and events; logs; and plain creation of what a deployment brings. No
watches, no discovery, no ``kubectl``, no quotas, no priorities, no webhooks but Kueue's.

It stays under 3,500 lines, its own tests included. A kind, a verb or a rule is added when the product begins to use it, and
leaves with it. Its tests run on a disposable real cluster too (``fixtures.py``), which is how its manners are kept true.

| Module | Role |
| --- | --- |
| ``fake`` | The cluster as tests see it |
| ``resources`` | Kinds, errors, selectors, quantities, the clock |
| ``storage`` | Objects, versions, garbage collection, events |
| ``registry`` | Verbs: schema, rules, defaults, apply and merge |
| ``rbac`` | Who may do what |
| ``api`` | HTTP, lists in pages, logs |
| ``jobs`` ``kueue`` | Job controller, time to live, queues |
| ``scheduler`` | Nodes, pools that grow from zero, why pods are pending |
| ``kubelet`` ``container`` | Pods as processes, and what these see |
| ``faults`` | What goes wrong |
| ``real`` ``fixtures`` | The same handle on a real cluster |
"""
