"""`evaluation` turns answers into scores. It works with any OpenAI endpoint, whatever serves it.

async with ChatEndpoint("http://127.0.0.1:8000/v1") as endpoint:
    report = await compare_models(endpoint, ["tuneloop-demo", "ft:tuneloop-demo:…"], read_questions(path))
print(report.scores)

`evaluation.arena` turns people's votes into ratings with intervals; it has an API of its own.
"""

from evaluation.endpoint import ChatEndpoint, EndpointError
from evaluation.report import ModelReport, Question, QuestionsError, Report, compare_models, exact_match, read_questions

__all__ = [
    "ChatEndpoint",
    "EndpointError",
    "ModelReport",
    "Question",
    "QuestionsError",
    "Report",
    "compare_models",
    "exact_match",
    "read_questions",
]
