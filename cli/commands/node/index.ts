import { nodeFlags, PgNodeCommand } from '../../node.ts';

export default class Node extends PgNodeCommand {
  static override summary = 'Run the node daemon: other nodes that are known can move containers here.';
  static override description =
    'Stays in the foreground unless --detach is given. Containers do not depend on it: it may end, or be killed, at any time.';
  static override examples = [
    '<%= config.bin %> node',
    '<%= config.bin %> node --listen 192.0.2.7:7411',
    '<%= config.bin %> node start --detach',
  ];
  static override flags = nodeFlags;

  async run(): Promise<void> {
    const { flags } = await this.parse(Node);
    await this.start(this.roots(flags), flags.listen, flags.detach);
  }
}
