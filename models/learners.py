"""The learner that a spec names: worker, tuner and seeder make theirs here."""

from models.learner import Learner
from models.spec import ModelSpec, SpecError

# Each kind imports what it needs: the mixture and River's learners do without torch.


def make(spec: ModelSpec, *, learning_rate: float | None = None, half_life_events: float | None = None) -> Learner:
    """A fresh learner.

    Args:
        spec: says which.
        learning_rate: overrides the spec's, as re-tuning does; of kinds that are tuned.
        half_life_events: likewise.

    Raises:
        SpecError: River cannot make it, or it does not take the spec's rows.
    """
    match spec.learner.kind:
        case "mixture":
            from models.mixture_learner import MixtureLearner

            return MixtureLearner(spec, learning_rate=learning_rate, half_life_events=half_life_events)
        case "torch":
            from models.torch_learner import TorchLearner

            return TorchLearner(spec, learning_rate=learning_rate, half_life_events=half_life_events)
        case "river":
            from models.estimators import EstimatorError
            from models.river_learner import RiverLearner

            try:
                return RiverLearner(spec)
            except EstimatorError as error:
                raise SpecError(f"learner: {error}") from error


def warm(spec: ModelSpec) -> None:
    """Have what the spec's learner learns with compiled; servers, which only answer, need not.

    Raises:
        SpecError: as ``make``.
    """
    make(spec)
    if spec.learner.kind == "mixture":
        from models.mixture_learner import compile_members

        compile_members(spec.task == "regression")
