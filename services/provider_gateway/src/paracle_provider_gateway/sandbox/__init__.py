"""A small deterministic model made of rules.

It reads the tools and schemas of a request, calls the tools that it can fill the arguments of, and answers in the shape
that was asked for. It is no language model and says so; it makes every path of Paracle run without keys.

    reading     what the conversation says: texts, JSON documents, records
    language    which language a text is in
    lexicon     which words stand for which concept, in five languages
    classify    enums, levels, sentiments and yes/no by those words
    summary     first informative sentences; an overview of records
    strings     text that fits length, pattern and format
    synthesis   a value for a JSON Schema
    tool_use    which tools to call next, with which arguments
    rules       the model: a request in, a reply out
"""
