import { PgError } from '../mdm/error.ts';
import type { IoBudget } from '../runtime/record.ts';
import { parseSize } from './sizes.ts';

const bad = (message: string): PgError =>
  new PgError('BAD_USAGE', message, {
    hint: '--io-budget read=10g,written=1g: any of accesses, read, written, compute and amount; or none',
  });

const UNITS: Record<string, number> = { '': 1, k: 1e3, m: 1e6, g: 1e9, t: 1e12 };

/** `read=10g,written=1g,accesses=100k,compute=5m,amount=2.50`; null for `none`. PgError('BAD_USAGE'). */
export function parseIoBudget(text: string): IoBudget | null {
  if (text === 'none') return null;
  const budget: IoBudget = {};
  for (const part of text.split(',')) {
    const [name, value = '', ...rest] = part.split('=');
    if (rest.length > 0 || value === '') throw bad(`invalid --io-budget: '${part}'`);
    switch (name) {
      case 'read':
      case 'written':
        budget[name] = parseSize(value, `${name} of --io-budget`);
        break;
      case 'accesses':
      case 'compute':
        budget[name] = parseCount(value);
        break;
      case 'amount':
        if (!/^\d+(\.\d+)?(e[+-]?\d+)?$/i.test(value)) throw bad(`invalid amount of --io-budget: '${value}'`);
        budget.amount = Number(value);
        break;
      default:
        throw bad(`--io-budget knows no '${name}'`);
    }
  }
  return budget;
}

function parseCount(text: string): number {
  const match = /^(\d+(?:\.\d+)?)([kmgt]?)$/i.exec(text);
  if (match === null) throw bad(`invalid number in --io-budget: '${text}'`);
  return Math.floor(Number(match[1]) * UNITS[match[2]!.toLowerCase()]!);
}
