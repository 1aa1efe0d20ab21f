import { Args } from '@oclif/core';
import { PgError } from '../../mdm/error.ts';
import { findContainer } from '../../runtime/containers.ts';
import { PgCommand } from '../base.ts';

export default class Port extends PgCommand {
  static override summary = "List a container's published ports, or where one of them is.";
  static override examples = ['<%= config.bin %> port web', '<%= config.bin %> port web 80/tcp'];
  static override args = {
    container: Args.string({ description: 'name or id', required: true }),
    port: Args.string({ description: 'PORT[/udp] of the container' }),
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Port);
    const { record, state } = await findContainer(this.roots(flags), args.container);
    const wanted = args.port === undefined || args.port.includes('/') ? args.port : `${args.port}/tcp`;
    const lines = (state.network?.ports ?? []).map((p) => ({
      port: `${p.containerPort}/${p.protocol}`,
      where: `${p.hostIp || '0.0.0.0'}:${p.hostPort}`,
    }));
    const shown = wanted === undefined ? lines : lines.filter((line) => line.port === wanted);
    if (wanted !== undefined && shown.length === 0) {
      throw new PgError('NO_PORT', `no public port '${wanted}' published for ${record.name}`);
    }
    for (const { port, where } of shown) {
      process.stdout.write(wanted === undefined ? `${port} -> ${where}\n` : `${where}\n`);
    }
  }
}
