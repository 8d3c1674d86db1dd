"""Routes of students: what jobs make."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from app.api.dependencies import BackendDep, OwnerDep
from app.api.file_answers import ARCHIVE, HEADERS_OF_FILE, REDIRECTED, answer_file, file_responses
from app.api.parameters import After, Limit, Order, show_page
from app.api.problem_codes import IN_USE
from app.api.problems import problems
from app.api.representations import NOT_MODIFIED, represent
from app.api.response_headers import NEXT_PAGE
from app.api.schemas import Page, Student, StudentFile, StudentFiles
from app.domain.errors import NotFoundError, RangeNotSatisfiableError
from app.services import students

router = APIRouter(prefix="/students", tags=["students"])

StudentId = Annotated[str, Path(description="`stu-…`")]
_FILE = problems(NotFoundError, RangeNotSatisfiableError)


@router.get(
    "",
    operation_id="list_students",
    summary="List students",
    responses={200: {"headers": NEXT_PAGE}},
)
def list_students(
    *,
    request: Request,
    response: Response,
    backend: BackendDep,
    owner: OwnerDep,
    limit: Limit = 20,
    after: After = None,
    order: Order = "desc",
) -> Page[Student]:
    """The newest first, unless asked otherwise."""
    rows = students.page(backend, owner, limit=limit, after=after, descending=order == "desc")
    return show_page(
        request=request, response=response, rows=rows, limit=limit, shown=Student.of, page=Page[Student]
    )


@router.get(
    "/{student_id}",
    operation_id="get_student",
    summary="Show a student",
    responses=problems(NotFoundError),
)
def get_student(student_id: StudentId, backend: BackendDep, owner: OwnerDep) -> Student:
    """Labels, architecture and size; the job's report is at the job."""
    return Student.of(students.get(backend, owner, student_id))


@router.delete(
    "/{student_id}",
    status_code=204,
    operation_id="delete_student",
    summary="Delete a student",
    responses=problems(NotFoundError, IN_USE),
)
def delete_student(student_id: StudentId, backend: BackendDep, owner: OwnerDep) -> None:
    """With its files, unless a job that has not ended needs it."""
    students.delete(backend, owner, student_id)


@router.get(
    "/{student_id}/files",
    operation_id="list_student_files",
    summary="The manifest: path, size and sha256 of every file",
    response_model=StudentFiles,
    responses=problems(NotFoundError) | NOT_MODIFIED,
)
@router.head(
    "/{student_id}/files",
    operation_id="head_student_files",
    summary="Headers of the manifest",
    response_class=Response,
    responses=problems(NotFoundError) | NOT_MODIFIED,
)
def list_student_files(
    student_id: StudentId, request: Request, backend: BackendDep, owner: OwnerDep
) -> Response:
    """Fetch each under `files/{path}`, and check it against its sha256."""
    student = students.get(backend, owner, student_id)
    return represent(request, StudentFiles(data=[StudentFile.model_validate(each) for each in student.files]))


@router.get(
    "/{student_id}/files/{path:path}",
    operation_id="download_student_file",
    summary="One file of a student",
    response_class=Response,
    responses=_FILE | file_responses() | REDIRECTED,
)
@router.head(
    "/{student_id}/files/{path:path}",
    operation_id="head_student_file",
    summary="Headers of one file of a student",
    response_class=Response,
    responses=problems(NotFoundError) | HEADERS_OF_FILE,
)
def download_student_file(
    student_id: StudentId, path: str, request: Request, backend: BackendDep, owner: OwnerDep
) -> Response:
    """`Range` and `If-Range` go on with a download that was cut off; `ETag` is the file's sha256."""
    return answer_file(request, students.file(backend, owner, student_id, path), backend.store)


@router.get(
    "/{student_id}/download",
    operation_id="download_student",
    summary="All files of a student as one .tar",
    response_class=Response,
    responses=_FILE | file_responses(ARCHIVE),
)
@router.head(
    "/{student_id}/download",
    operation_id="head_student_download",
    summary="Headers of a student's .tar",
    response_class=Response,
    responses=problems(NotFoundError) | HEADERS_OF_FILE,
)
def download_student(
    student_id: StudentId, request: Request, backend: BackendDep, owner: OwnerDep
) -> Response:
    """The same bytes every time, so that `Range` works here too."""
    return answer_file(request, students.archive(backend, owner, student_id), backend.store)
