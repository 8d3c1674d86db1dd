"""What a job would be, before it is one."""

from fastapi import APIRouter

from app.api.dependencies import BackendDep, OwnerDep
from app.api.problems import problems
from app.api.recipe_body import RecipeBody
from app.api.schemas_plan import Plan
from app.api.scopes import FOR_READERS
from app.domain.errors import HubUnavailableError, InvalidRequestError
from app.services import plan as plans

router = APIRouter(prefix="/amalgamations", tags=["amalgamations"])


@router.post(
    "/plan",
    operation_id="plan_amalgamation",
    summary="Try a job's body without submitting it",
    responses=problems(InvalidRequestError, HubUnavailableError),
    openapi_extra=FOR_READERS,
)
def plan_amalgamation(body: RecipeBody, backend: BackendDep, owner: OwnerDep) -> Plan:
    """Labels, teachers, texts and estimates, and every problem for which the job would be refused.

    Nothing is stored: texts in the body are counted, data sets on the Hub are not downloaded.
    """
    return Plan.of(plans.plan(backend, owner, body.recipe, body.faults))
