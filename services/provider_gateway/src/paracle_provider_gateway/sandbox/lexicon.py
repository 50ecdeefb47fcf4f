"""Words that stand for concepts, in English, German, French, Spanish and Italian.

A word is matched from its beginning (`refund` finds "refunded"); a trailing `$` asks for the whole word.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

WORDS: Final[dict[str, str]] = {
    "bug": """
        bug, error, crash, exception, freez, stack trace, does not work, doesn't work, not working, stopped working,
        fails$, failed, failure, glitch, wrong result, broken$,
        fehler, absturz, abstürz, stürzt, funktioniert nicht, kaputt,
        bogue, plante$, plantage, ne fonctionne, erreur,
        fallo, falla$, no funciona, se cierra, errore, non funziona, si blocca, si chiude""",
    "billing": """
        invoice, bill$, billed, billing, charge$, charged, charges$, payment, paid$, refund, overcharg, credit card,
        subscription fee, pricing, receipt, vat$, rechnung, abgebucht, abbuchung, zahlung, erstattung, lastschrift,
        kreditkarte, facture, factur, paiement, prélev, rembours, abonnement, factura, cobro, cobrado, cobraron, pago$,
        reembolso, fattura, pagamento, addebit, rimborso""",
    "refund": """
        refund, money back, chargeback, erstattung, geld zurück, rembours, reembolso, devolución, rimborso""",
    "feature": """
        feature, suggestion, would be nice, would be great, would love, could you add, please add, wish$,
        would be useful, dark mode, roadmap, wunsch, wünsch, vorschlag, wäre schön, wäre toll, fonctionnalité,
        suggérer, ce serait, j'aimerais, sugerencia, sería útil, me gustaría, estaría bien,
        suggeriment, sarebbe utile, sarebbe bello, vorrei""",
    "account": """
        account, login, log in, logged out, sign in, password, locked$, lockout, locked out, two-factor, 2fa$, username,
        profile$, reset link, konto, anmeld, einloggen, passwort, gesperrt, zugang,
        compte, connexion, mot de passe, bloqué, identifiant, cuenta, contraseña, iniciar sesión, acceso, bloqueada,
        bloccato, accedere, accesso""",
    "outage": """
        outage, is down$, are down$, unavailable, unreachable, 503$, all users, for everyone, in production, whole team,
        ausfall, ausgefallen, nicht erreichbar, störung, en panne, indisponible, hors service, caído, caída,
        no disponible, interrupción, disservizio, non raggiungibile""",
    "spam": """
        lottery, winner, prize, congratulations, click here, claim your, seo$, backlink, viagra, casino, crypto,
        bitcoin, investment opportunity, limited offer, unsubscribe, act now, 100% free, gewinnspiel, gewonnen,
        guaranteed, loterie, gagné, lotería, premio, lotteria, vinto""",
    "security": """
        security, breach, vulnerab, phishing, hacked, leaked, unauthorized, unauthorised, data loss, lost all,
        sicherheitslücke, gehackt, faille, piraté, seguridad, violazione""",
    "shipping": """
        shipping, shipment, deliver, parcel, tracking, lieferung, paket, livraison, colis, envío, paquete, spedizione,
        pacco""",
    "question": """
        question, how do, how can, wondering, frage, wie kann, comment faire, pregunta, cómo, domanda, come posso""",
    "urgent": """
        urgent, asap$, immediately, emergency, critical, blocker, blocking, right now, as soon as possible, cannot wait,
        deadline, dringend, sofort, eilig, unverzüglich, urgence, immédiatement, au plus vite, urgente, inmediatamente,
        cuanto antes, urgenza, subito, immediatamente, il prima possibile""",
    "calm": """
        no rush, no hurry, whenever, minor$, when you have time, low priority, just a thought, nice to have, keine eile,
        pas urgent, pas pressé, sin prisa, senza fretta, nessuna fretta""",
    "positive": """
        thank, great$, love$, excellent, awesome, happy, wonderful, perfect, amazing, danke, toll$, super$, prima$,
        merci, parfait, génial, gracias, excelente, genial, grazie, perfetto, ottimo""",
    "negative": """
        unacceptable, angry, terrible, awful, disappointed, frustrat, worst, useless, hate$, annoy, broken$, complain,
        ridiculous, furious, ärger, enttäuscht, unverschämt, schlecht, inacceptable, déçu, colère, inaceptable,
        decepcion, enfadado, pésimo, inaccettabile, deluso, arrabbiat, pessimo""",
}
"""Concept to its words, separated by commas."""

_READ: Final = 8_000
_MEANT_BY: Final[dict[str, str]] = {
    "bug": "defect technical technicalissue incident error problem issue crash bugreport fault",
    "billing": "invoice payment payments finance invoicing billingissue pricing",
    "refund": "refunds refundrequest chargeback",
    "feature": "featurerequest enhancement suggestion idea improvement request",
    "account": "login access authentication accountaccess password auth",
    "outage": "downtime serviceoutage availability down",
    "spam": "junk scam advertising advertisement",
    "security": "vulnerability breach",
    "shipping": "delivery logistics order",
    "question": "inquiry enquiry howto support help",
    "urgent": "emergency",
    "positive": "happy satisfied praise good",
    "negative": "unhappy angry complaint bad dissatisfied",
}
_CONCEPT_OF: Final[dict[str, str]] = {
    name: concept for concept, names in _MEANT_BY.items() for name in (concept, *names.split())
}


def concept_of(option: str) -> str | None:
    """The concept that an option of an enum names, if it is a known one."""
    plain = re.sub(r"[\W_]+", "", option).casefold()
    return _CONCEPT_OF.get(plain) or _CONCEPT_OF.get(plain.removesuffix("s"))


def hits(concept: str, text: str) -> int:
    """How many different words of `concept` are at the beginning of `text`, where mails say what they are about."""
    return len({found.group().casefold() for found in _pattern(concept).finditer(text[:_READ])})


@lru_cache(maxsize=64)
def _pattern(concept: str) -> re.Pattern[str]:
    words = "|".join(_expression(word.strip()) for word in WORDS[concept].split(","))
    return re.compile(rf"(?<!\w)(?:{words})", re.IGNORECASE)


def _expression(word: str) -> str:
    return re.escape(word.removesuffix("$")) + (r"(?!\w)" if word.endswith("$") else "")
