import { PgError } from '../mdm/error.ts';
import type { Budget } from '../mdm/meter.ts';
import type { Roots } from '../store/paths.ts';
import type { IoBudget } from './record.ts';
import { readSettings } from './settings.ts';

/** The budget of a container as its mount wants it. PgError('NO_PRICES') for an amount of money where there are no prices. */
export async function mountBudget(roots: Roots, budget: IoBudget | null): Promise<Budget | null> {
  if (budget === null) return null;
  const { amount, ...resources } = budget;
  if (amount === undefined) return resources;
  const { prices } = await readSettings(roots);
  if (prices === null) {
    throw new PgError('NO_PRICES', 'an I/O budget of an amount of money needs prices, and this node has none', {
      hint: `set [prices] in ${roots.config}/config.toml, or limit accesses, read, written or compute`,
    });
  }
  return { ...resources, amount: { total: amount, prices } };
}
