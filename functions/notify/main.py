"""Notifications: channels, rules, events; watches balances and delivers webhooks."""

from tollgate.notify.service import NotifyService
from tollgate.platform.application import Application
from tollgate.platform.target import framework_target

app = Application("notify", NotifyService)
notify = framework_target(app)
