"""A support inbox: short messages of customers, and the team and intent that each belongs to."""

from demo.support_inbox.generator import COUNTS, PARTS, TEAMS, Message, Part, messages, templates

__all__ = ["COUNTS", "PARTS", "TEAMS", "Message", "Part", "messages", "templates"]
