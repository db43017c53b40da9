"""The executor on a cluster: a plan becomes Jobs, which a conductor begins when what they need is sealed."""

from __future__ import annotations

from ticketsmith.config import Recipe
from ticketsmith.config.target import Target
from ticketsmith.errors import Exit, TicketSmithError
from ticketsmith.execute.executor import Executor
from ticketsmith.execute.kubernetes.cluster import Cluster
from ticketsmith.execute.kubernetes.conductor import Conductor, Grow, Note
from ticketsmith.execute.kubernetes.records import Records
from ticketsmith.execute.kubernetes.submit import Proposal, propose, submit
from ticketsmith.plan import Plan
from ticketsmith.store.index import Index


class KubernetesExecutor(Executor):
    """Jobs of ``cluster``, which make the runs of ``recipe``, or of what was submitted before; ``note`` is told what happens.

    Of a search the plan are all runs that it may ask for; ``grow`` says how far it has come.
    """

    def __init__(
        self,
        records: Records,
        cluster: Cluster,
        target: Target,
        note: Note,
        recipe: Recipe | None = None,
        grow: Grow | None = None,
    ) -> None:
        self.records, self.cluster, self.target, self.recipe, self.note = records, cluster, target, recipe, note
        self._grow = grow
        self._proposal: tuple[Plan, Proposal] | None = None

    def propose(self, plan: Plan) -> Proposal:
        """What submitting, or resuming without a recipe, would begin; changes nothing."""
        part = self._grow(plan, Index(self.records.store, plan.experiment)) if self._grow else plan
        proposal = propose(part, self.target, self.records, again=self.recipe is None)
        self._proposal = plan, proposal
        return proposal

    def submit(self, plan: Plan) -> None:
        """Writes the experiment into the store; the cluster is asked first. Raises ClusterError."""
        if self.recipe is None:
            raise TicketSmithError(f"{plan.experiment}: there is no recipe to submit.")
        proposal = self._proposal[1] if self._proposal and self._proposal[0] is plan else self.propose(plan)
        recipe, whole = self.recipe, plan if self._grow else None
        submit(self.records, self.cluster, proposal, recipe.source, recipe.task_component, recipe.sha256, whole)

    def wait(self) -> Exit:
        """Conducts from here, until the report is written."""
        return Conductor(self.records, self.cluster, self.note, self._grow).run(min(3.0, self.target.limits.poll))
