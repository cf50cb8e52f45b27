"""What the provider says to the programs of the documentation's pages."""

from __future__ import annotations

from support.model_server import Say, Use, table

ANSWERS = table(
    {
        "One line about tides": "The sea rises and falls twice a day.",
        "May I sail": "Wait for the ebb.",
        "The tide at Brest": Say(calls=(Use("final_result", {"place": "Brest", "metres": 6.5}),)),
        "When is it high": [
            Say(calls=(Use("tide_table", {"place": "Brest"}),)),
            "At 05:12 and 17:36.",
        ],
        "Tell me of the moon": "It pulls the sea.",
        "Tell Ann": [
            Say(calls=(Use("look_up", {"place": "Brest"}),)),
            Say(
                calls=(
                    Use(
                        "send_mail",
                        {"to": "ann@example.com", "body": "High at 05:12 and 17:36."},
                    ),
                )
            ),
            "Ann knows.",
        ],
    }
)
