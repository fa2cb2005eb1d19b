"""From stored runs to a document that answers the questions.

`load` reads files into what `material` holds; `assemble` puts a `document` together and writes it. Between them stand
``answers`` (the questions, and what to take for a stated need), ``figures``, `tables` and ``sections``; behind them
``forms``: page, Markdown, PDF, CSV and JSON. Nothing here measures, and nothing imports torch, so that a report is
there in seconds.
"""
