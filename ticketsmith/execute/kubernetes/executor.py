"""The executor on a cluster: a plan becomes Jobs, which a conductor begins when what they need is sealed."""

from __future__ import annotations

from ticketsmith.config import Recipe
from ticketsmith.config.target import Target
from ticketsmith.errors import Exit, TicketSmithError
from ticketsmith.execute.executor import Executor
from ticketsmith.execute.kubernetes.cluster import Cluster
from ticketsmith.execute.kubernetes.conductor import Conductor, Note
from ticketsmith.execute.kubernetes.records import Records
from ticketsmith.execute.kubernetes.submit import Proposal, propose, submit
from ticketsmith.plan import Plan


class KubernetesExecutor(Executor):
    """Jobs of ``cluster``, which make the runs of ``recipe``, or of what was submitted before; ``note`` is told what happens."""

    def __init__(
        self, records: Records, cluster: Cluster, target: Target, note: Note, recipe: Recipe | None = None
    ) -> None:
        self.records, self.cluster, self.target, self.recipe, self.note = records, cluster, target, recipe, note
        self._proposal: Proposal | None = None

    def propose(self, plan: Plan) -> Proposal:
        """What submitting, or resuming without a recipe, would begin; changes nothing."""
        self._proposal = propose(plan, self.target, self.records, again=self.recipe is None)
        return self._proposal

    def submit(self, plan: Plan) -> None:
        """Writes the experiment into the store; the cluster is asked first. Raises ClusterError."""
        if self.recipe is None:
            raise TicketSmithError(f"{plan.experiment}: there is no recipe to submit.")
        proposal = self._proposal if self._proposal and self._proposal.plan is plan else self.propose(plan)
        recipe = self.recipe
        submit(self.records, self.cluster, proposal, recipe.source, recipe.task_component, recipe.sha256)

    def wait(self) -> Exit:
        """Conducts from here, until the report is written."""
        return Conductor(self.records, self.cluster, self.note).run(min(3.0, self.target.limits.poll))
