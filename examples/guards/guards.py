"""A guard of your own: letters about refunds are for people to answer, and shouting is toned down."""

from __future__ import annotations

from paracle_client.worker import GuardAnswer, GuardQuestion, Worker

worker = Worker()


@worker.guard(name="house-rules")
def house_rules(question: GuardQuestion) -> GuardAnswer | None:
    """What of a letter the model may read."""
    texts = [shown.text for shown in question.passages]
    if any("refund" in text.lower() for text in texts):
        return GuardAnswer.refused("letters about refunds are answered by people")
    return GuardAnswer.replaced(*(text.capitalize() if text.isupper() else text for text in texts))


if __name__ == "__main__":
    worker.main()
