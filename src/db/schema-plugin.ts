import {
  IdentifierNode,
  type KyselyPlugin,
  OperationNodeTransformer,
  type PluginTransformQueryArgs,
  type PluginTransformResultArgs,
  type QueryId,
  type QueryResult,
  type RootOperationNode,
  type SchemableIdentifierNode,
  type UnknownRow,
} from 'kysely'
import { SCHEMA_OBJECTS } from './schema.ts'

class AddSchema extends OperationNodeTransformer {
  readonly #schema: IdentifierNode

  constructor(schema: string) {
    super()
    this.#schema = IdentifierNode.create(schema)
  }

  protected override transformSchemableIdentifier(
    node: SchemableIdentifierNode,
    queryId?: QueryId,
  ): SchemableIdentifierNode {
    const transformed = super.transformSchemableIdentifier(node, queryId)
    if (transformed.schema !== undefined || !SCHEMA_OBJECTS.has(transformed.identifier.name))
      return transformed
    return { ...transformed, schema: this.#schema }
  }
}

/**
 * Completes the names of our tables with the schema they live in, in built queries and in `sql` templates alike.
 * Kysely's own `withSchema` leaves raw templates alone, and a `search_path` does not survive PgBouncer.
 */
export function schemaPlugin(schema: string): KyselyPlugin {
  const transformer = new AddSchema(schema)
  return {
    transformQuery: (args: PluginTransformQueryArgs): RootOperationNode =>
      transformer.transformNode(args.node, args.queryId),
    transformResult: async (args: PluginTransformResultArgs): Promise<QueryResult<UnknownRow>> => args.result,
  }
}
