"""Ways to call the operations of notifications."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.support.houses import World, mark
from tests.support.probe import PLAIN, Probe, done


def by_notification(word: str = "") -> Callable[[World, str], Mapping[str, str]]:
    """Channel, rule and event of a house, or the spare ones."""

    def named(world: World, house: str) -> Mapping[str, str]:
        ids = world.notification_ids[house]
        return {
            "channelId": ids[f"{word}channel"],
            "ruleId": ids[f"{word}rule"],
            "eventId": ids["event"],
        }

    return named


def notification_channel(house: str) -> dict[str, Any]:
    return {"type": "WEBHOOK", "name": mark(house), "url": "https://hooks.invalid/"}


def notification_rule(world: World, house: str) -> dict[str, Any]:
    channel = world.notification_ids[house]["channel"]
    return {"type": "invoice.created", "name": mark(house), "channels": [channel]}


NOTIFICATIONS: Mapping[str, Sequence[Probe]] = {
    "listNotificationChannels": (PLAIN,),
    "getNotificationChannel": (Probe(path=by_notification()),),
    "listNotificationRules": (PLAIN,),
    "getNotificationRule": (Probe(path=by_notification()),),
    "listNotificationEvents": (PLAIN,),
    "getNotificationEvent": (Probe(path=by_notification()),),
    "createNotificationChannel": (Probe(body=notification_channel),),
    "updateNotificationChannel": (Probe(path=by_notification(), body=notification_channel),),
    "createNotificationRule": (Probe(naming=notification_rule),),
    "updateNotificationRule": (Probe(path=by_notification(), naming=notification_rule),),
    "testNotificationRule": (Probe(path=by_notification()),),
    "resendNotificationEvent": (Probe(path=by_notification(), own=done),),
    "deleteNotificationRule": (Probe(path=by_notification("spare_"), own=done, ends=True),),
    "deleteNotificationChannel": (Probe(path=by_notification("spare_"), own=done, ends=True),),
}
