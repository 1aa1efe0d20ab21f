import { Flags } from '@oclif/core';
import { formatAddress, parseAddress } from '../grid/peers.ts';
import { runNode } from '../runtime/node.ts';
import { startDetached } from '../runtime/node-control.ts';
import type { Roots } from '../store/paths.ts';
import { PgCommand } from './base.ts';

export const nodeFlags = {
  listen: Flags.string({
    description: 'where to listen for other nodes',
    helpValue: 'HOST:PORT',
    default: '0.0.0.0:7411',
    env: 'PG_LISTEN',
  }),
  detach: Flags.boolean({ char: 'd', description: 'run in the background' }),
};

/** `pg node` and `pg node start`, which are the same. */
export abstract class PgNodeCommand extends PgCommand {
  protected async start(roots: Roots, listen: string, detach: boolean): Promise<void> {
    this.needRoot('the node daemon');
    const at = parseAddress(listen);
    if (detach) {
      const { id, address } = await startDetached(roots, at);
      process.stdout.write(`node ${id} listens on ${formatAddress(address)}\n`);
      return;
    }
    const stop = new AbortController();
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.once(signal, () => stop.abort());
    await runNode(roots, at, (line) => void process.stdout.write(`${line}\n`), stop.signal);
  }
}
