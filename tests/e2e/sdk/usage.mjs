// OpenMeter's published JavaScript client, unmodified: only the base URL is ours.
// Prints what it saw as one JSON object; tests/e2e/test_sdk_javascript.py says what that must be.
import { randomUUID } from 'node:crypto';
import { HTTPError, OpenMeter } from '@openmeter/sdk';

const [baseUrl, apiKey] = process.argv.slice(2);
const client = new OpenMeter(apiKey ? { baseUrl, apiKey } : { baseUrl });
const name = randomUUID().replaceAll('-', '');
const kind = `kind_${name}`;
const slug = `sdk_${name}`;
const [ada, bob] = [`ada_${name}`, `bob_${name}`];
const NOON = new Date('2026-03-10T12:00:00Z');
const later = (minutes) => new Date(NOON.getTime() + minutes * 60_000);
const seen = {};

const total = (result) => result.data.reduce((sum, row) => sum + row.value, 0);
const short = (text) => text?.replace(`_${name}`, '') ?? null;
const rows = (result) =>
  result.data.map((row) => [short(row.subject), row.groupBy.model ?? null, row.value]).sort();

/** Asks until the answer is right: what was sent is counted a moment later. */
async function eventually(ask, isRight) {
  const end = Date.now() + 20_000;
  for (;;) {
    const answer = await ask();
    if (isRight(answer)) return answer;
    if (Date.now() > end) throw new Error(`never right: ${JSON.stringify(answer)}`);
  }
}

/** What a refused call tells the caller. */
async function refusal(call) {
  try {
    await call();
  } catch (error) {
    if (!(error instanceof HTTPError)) throw error;
    const detail = error.getField('detail');
    return {
      status: error.status,
      title: error.title,
      explained: Boolean(detail) && error.message.endsWith(`[${error.status}]: ${detail}`),
    };
  }
  return 'accepted';
}

const made = await client.meters.create({
  slug,
  name: 'Tokens',
  aggregation: 'SUM',
  eventType: kind,
  valueProperty: '$.tokens',
  groupBy: { model: '$.model' },
});
seen.created = [made.slug === slug, made.aggregation, made.createdAt instanceof Date];
seen.found = (await client.meters.get(slug)).id === made.id;
seen.listed = (await client.meters.list({ params: { query: { pageSize: 1000 } } })).some(
  (meter) => meter.id === made.id
);

const event = (subject, minute, tokens, model) => ({
  type: kind,
  subject,
  time: later(minute),
  data: { tokens, model },
});
seen.ingested = [
  (await client.events.ingest(event(ada, 0, 1, 'a'))) ?? null,
  (await client.events.ingest([event(ada, 1, 2, 'b'), event(bob, 61, 4, 'a')])) ?? null,
];

const all = await eventually(
  () => client.meters.query(slug),
  (result) => total(result) === 7
);
seen.total = rows(all);
seen.byModel = rows(await client.meters.query(slug, { groupBy: ['model'] }));
seen.ofBob = rows(await client.meters.query(slug, { subject: [bob], groupBy: ['subject'] }));
seen.filtered = rows(await client.meters.query(slug, { filterGroupBy: { model: 'a' } }));
const hours = await client.meters.query(slug, { from: NOON, to: later(120), windowSize: 'HOUR' });
seen.hours = hours.data.map((row) => [row.windowStart, row.windowEnd, row.value]);
seen.posted = rows(
  await client.meters.queryPost(slug, {
    from: NOON,
    groupBy: ['model'],
    filterGroupBy: { model: ['b'] },
  })
);
seen.advanced = rows(
  await client.meters.query(slug, {
    advancedMeterGroupByFilters: JSON.stringify({ model: { $ne: 'a' } }),
  })
);
const days = await client.meters.query(slug, {
  from: new Date('2026-03-09T23:00:00Z'),
  to: new Date('2026-03-10T23:00:00Z'),
  windowSize: 'DAY',
  windowTimeZone: 'Europe/Berlin',
});
seen.days = days.data.map((row) => [row.windowStart, row.windowEnd, row.value]);
await client.meters.query(slug, { clientId: name });
const progress = await client.info.getProgress(name);
seen.progress = [progress.success, progress.failed, progress.total];
// The client has no method for a meter's subjects; its typed fetch has the path.
const subjects = await client.client.GET('/api/v1/meters/{meterIdOrSlug}/subjects', {
  params: { path: { meterIdOrSlug: slug } },
});
seen.meterSubjects = subjects.data.map(short);
const csv = await client.client.GET('/api/v1/meters/{meterIdOrSlug}/query', {
  headers: { Accept: 'text/csv' },
  params: { path: { meterIdOrSlug: slug }, query: { from: NOON, to: later(60) } },
  parseAs: 'text',
});
seen.csv = csv.data.split('\r\n');
seen.values = await client.meters.listGroupByValues(slug, 'model', { from: NOON });

const listed = await client.events.list({ subject: ada, from: NOON });
seen.events = listed.map(({ event: { type, time, data, source } }) => [
  type === kind,
  time,
  data,
  source,
]);
const page = await client.events.listV2({
  filter: JSON.stringify({ subject: { $eq: ada } }),
  limit: 1,
});
seen.page = [page.items.length, typeof page.nextCursor];
const [again] = listed;
// The same event once more adds nothing; what is sent after it does.
await client.events.ingest(again.event);
await client.events.ingest(event(ada, 2, 8, 'a'));
seen.sentTwice = rows(
  await eventually(
    () => client.meters.query(slug),
    (result) => total(result) >= 15
  )
);

const [subject] = await client.subjects.upsert({ key: ada, displayName: 'Ada' });
seen.subject = [subject.key === ada, subject.displayName];
seen.subjectFound = (await client.subjects.get(ada)).id === subject.id;
seen.subjectListed = (await client.subjects.list()).some((each) => each.key === ada);
await client.subjects.delete(ada);
seen.subjectGone = await refusal(() => client.subjects.get(ada));

const usageAttribution = { subjectKeys: [ada] };
const acme = { key: `acme_${name}`, name: 'ACME', usageAttribution, currency: 'EUR' };
const customer = await client.customers.create(acme);
seen.customer = [customer.key === acme.key, customer.currency, customer.createdAt instanceof Date];
seen.customerFound = (await client.customers.get(acme.key)).id === customer.id;
seen.customerListed = (await client.customers.list({ subject: ada })).items.map(
  (each) => each.id === customer.id
);
const ofCustomer = { filterCustomerId: [customer.id], groupBy: ['customer_id'] };
seen.ofCustomer = (await client.meters.query(slug, ofCustomer)).data.map((row) => [
  row.customerId === customer.id,
  row.value,
]);
seen.customerTaken = await refusal(() => client.customers.create({ ...acme, name: 'Other' }));
seen.customerUpdated = (await client.customers.update(customer.id, { ...acme, name: 'New' })).name;
await client.customers.delete(customer.id);
seen.customerGone = await refusal(() => client.customers.get(customer.id));

const metered = {
  key: `gpt_${name}`,
  name: 'Tokens',
  meterSlug: slug,
  advancedMeterGroupByFilters: { model: { $in: ['a', 'b'] } },
  unitCost: { type: 'manual', amount: '0.005' },
};
const feature = await client.features.create(metered);
seen.feature = [
  feature.meterSlug === slug,
  feature.advancedMeterGroupByFilters.model.$in,
  feature.unitCost,
  feature.createdAt instanceof Date,
];
seen.featureFound = (await client.features.get(feature.id)).key === metered.key;
seen.featureListed = (await client.features.list({ meterSlug: [slug] })).map(
  (each) => each.id === feature.id
);
seen.featureTaken = await refusal(() => client.features.create(metered));
seen.featureHoldsMeter = await refusal(() => client.meters.delete(slug));
await client.features.delete(feature.id);
seen.featureArchived = (await client.features.get(feature.id)).archivedAt instanceof Date;

const key = `limited_${name}`;
await client.features.create({ key, name: 'Limited', meterSlug: slug });
const limited = await client.customers.create({
  key: `limited_${name}`,
  name: 'Limited',
  usageAttribution: { subjectKeys: [bob] },
});
const wanted = {
  type: 'metered',
  featureKey: key,
  usagePeriod: { interval: 'P100Y', anchor: later(-60) },
  measureUsageFrom: 'CURRENT_PERIOD_START',
  issue: { amount: 10 },
};
const { entitlements } = client.customers;
const right = await entitlements.create(limited.id, wanted);
seen.entitled = [right.type, right.issue, right.measureUsageFrom];
seen.entitledTwice = await refusal(() => entitlements.create(limited.id, wanted));
const grant = await entitlements.createGrant(limited.id, key, {
  amount: 2.5,
  effectiveAt: later(0),
  expiration: { duration: 'YEAR', count: 100 },
});
seen.granted = [grant.amount, grant.maxRolloverAmount, grant.expiresAt];
// Bob used 4; what ends first burns first.
const { hasAccess, balance, usage, overage } = await entitlements.value(limited.id, key);
seen.value = { hasAccess, balance, usage, overage };
const past = await entitlements.history(limited.id, key, 'HOUR', {
  query: { from: later(0), to: later(120) },
});
seen.history = past.burndownHistory.map((each) => [each.usage, each.balanceAtEnd]);
seen.grants = (await entitlements.listGrants(limited.id, key)).totalCount;
seen.access = Object.values((await client.customers.getAccess(limited.id)).entitlements).map(
  (each) => each.balance
);
seen.ofSubject = (await client.entitlementsV1.value(bob, key)).usage;
await client.entitlements.grants.void(grant.id);
await entitlements.resetUsage(limited.id, key, { retainAnchor: true });
seen.anew = (await entitlements.value(limited.id, key)).usage;
await entitlements.override(limited.id, key, { type: 'static', featureKey: key, config: '{}' });
seen.config = (await entitlements.value(limited.id, key)).config;
await entitlements.delete(limited.id, key);
seen.noRight = await entitlements.value(limited.id, key);
await client.features.delete(key);

const updated = await client.meters.update(slug, { name: 'Renamed', groupBy: { model: '$.model' } });
seen.updated = updated.name;
const meter = { slug, aggregation: 'SUM', eventType: kind, valueProperty: '$.tokens' };
seen.conflict = await refusal(() => client.meters.create(meter));
seen.refusedMeter = await refusal(() => client.meters.create({ ...meter, slug: 'NOT A SLUG' }));
seen.refusedQuery = await refusal(() => client.meters.query(slug, { windowSize: 'YEAR' }));
await client.meters.delete(slug);
seen.meterGone = await refusal(() => client.meters.get(slug));
seen.refused = await refusal(() => client.events.ingest({ type: '', subject: ada }));

console.log(JSON.stringify(seen));
