import { readMeter } from '../fs/log/meter-file.ts';
import type { Cost } from '../mdm/cost.ts';
import { isPgError } from '../mdm/error.ts';
import { amountOf } from '../mdm/meter.ts';
import type { Roots } from '../store/paths.ts';
import { ask, containerStats } from './containers.ts';
import { resolveContainer } from './names.ts';
import { mountBudget } from './prices.ts';
import { type ContainerRecord, type IoBudget, logDirOf, readRecord, writeRecord } from './record.ts';
import { readSettings } from './settings.ts';

/** What a container's I/O has cost since it was made, what it may cost, and what it comes to at this node's prices. */
export interface Metering {
  spent: Cost;
  budget: IoBudget | null;
  /** null without prices. */
  amount: number | null;
}

const NOTHING: Cost = { accesses: 0, read: 0, written: 0, compute: 0 };

/** What a container's I/O has cost; of a running one as of now, of another as of its end. */
export async function meteringOf(roots: Roots, record: ContainerRecord): Promise<Metering> {
  const { prices } = await readSettings(roots);
  const spent = await spentOf(roots, record.id);
  return { spent, budget: record.config.ioBudget ?? null, amount: prices === null ? null : amountOf(spent, prices) };
}

async function spentOf(roots: Roots, id: string): Promise<Cost> {
  try {
    const { filesystem } = await containerStats(roots, id);
    if (filesystem.spent !== null) return filesystem.spent;
  } catch (error) {
    if (!isPgError(error, 'NOT_RUNNING')) throw error;
  }
  return readMeter(logDirOf(roots, id))?.spent ?? NOTHING;
}

/** Gives a container another I/O budget (null: none), from now on if it runs. PgError('NO_SUCH_CONTAINER' | 'NO_PRICES'). */
export async function setIoBudget(roots: Roots, ref: string, budget: IoBudget | null): Promise<ContainerRecord> {
  await mountBudget(roots, budget);
  const record = readRecord(roots, resolveContainer(roots, ref));
  record.config.ioBudget = budget;
  writeRecord(roots, record);
  try {
    await ask(roots, record.id, { op: 'budget', budget });
  } catch (error) {
    if (!isPgError(error, 'NOT_RUNNING')) throw error;
  }
  return record;
}
