import { openPostgres } from './src/db/postgres.ts'
import { upgrade } from './src/db/migrate.ts'
import { loadMigrations } from './src/db/migrations.ts'
import { sql } from 'kysely'
import { ThreadbaseSaver } from './src/checkpoints/service.ts'
import { uuid6, emptyCheckpoint } from '@langchain/langgraph-checkpoint'
import { silentLog } from './src/core/log.ts'
const database = await openPostgres({ url: 'postgres://postgres@127.0.0.1:55432/postgres', schema: 'tb_quick', log: silentLog })
await upgrade(database, await loadMigrations())
const saver = new ThreadbaseSaver(database, { userId: 'u' })
const med = (a:number[])=>a.sort((x,y)=>x-y)[a.length>>1]!
const time = async (name:string,n:number,f:(i:number)=>Promise<unknown>)=>{const a:number[]=[];const c0=process.cpuUsage();for(let i=0;i<n;i++){const t=performance.now();await f(i);a.push(performance.now()-t)};const c=process.cpuUsage(c0);const m=med(a);console.log(name.padEnd(34),m.toFixed(2),'ms median','min',a[0]!.toFixed(2),'p25',a[n>>2]!.toFixed(2),'own cpu',((c.user+c.system)/1000/n).toFixed(2))}
const kb=(i:number,n=1000)=>`${i} `.padEnd(n,'lorem ipsum dolor ')
{ const thread=uuid6(0); let config:any={configurable:{thread_id:thread}}
 await time('put 4 channels of 250 B',300,async i=>{const c={...emptyCheckpoint(),id:uuid6(i),channel_values:{a:kb(i,250),b:kb(i+1,250),c:kb(i+2,250),d:kb(i+3,250)},channel_versions:{a:i+1,b:i+1,c:i+1,d:i+1}} as any;config=await saver.put(config,c,{source:'loop',step:i,parents:{}},c.channel_versions)})
 await time('getTuple latest 1 KB',200,()=>saver.getTuple({configurable:{thread_id:thread}}))
 await time('putWrites of 3',200,i=>saver.putWrites(config,[['a',kb(i,333)],['b',kb(i,333)],['c',kb(i,333)]],'task'+i))
}
for (const [n,steps] of [[100,200],[1000,100]] as const){ const thread=uuid6(0); let config:any={configurable:{thread_id:thread}}; let list:any[]=Array.from({length:n},(_,i)=>({id:'m'+i,role:'user',content:kb(i)}))
 await time(`put ${n} KB state, 1 KB new`,steps,async i=>{list=[...list.slice(1),{id:'n'+i,role:'user',content:kb(i)}];const c={...emptyCheckpoint(),id:uuid6(i),channel_values:{messages:list},channel_versions:{messages:i+1}} as any;config=await saver.put(config,c,{source:'loop',step:i,parents:{}},c.channel_versions)})
 await time(`getTuple latest ${n} KB`,50,()=>saver.getTuple({configurable:{thread_id:thread}}))
 const fresh=new ThreadbaseSaver(database,{userId:'u'})
 await time(`list 10 at ${n} KB`,10,async()=>{let k=0;for await(const x of fresh.list({configurable:{thread_id:thread,checkpoint_ns:''}},{limit:10}))k++;})
}
{const thread=uuid6(0);let config:any={configurable:{thread_id:thread}};let list:any[]=[];const a:number[]=[];
 for(let i=0;i<1000;i++){list=[...list,{id:'m'+i,role:'user',content:kb(i)}];const c={...emptyCheckpoint(),id:uuid6(i),channel_values:{messages:list,step:i},channel_versions:{messages:i+1,step:i+1}} as any;const t=performance.now();config=await saver.put(config,c,{source:'loop',step:i,parents:{}},c.channel_versions);a.push(performance.now()-t)}
 console.log('1000 steps: put at 5..50', med(a.slice(5,50)).toFixed(2),'at 950..1000',med(a.slice(950)).toFixed(2))
 const {rows}=await sql<any>`select (select sum(pg_column_size(b.*)) from ${sql.table('checkpoint_blobs')} b where thread_id=${thread}) as blobs,(select count(*) from ${sql.table('checkpoint_blobs')} b where thread_id=${thread}) as n,(select sum(pg_column_size(b.*)) from ${sql.table('checkpoints')} b where thread_id=${thread}) as rows`.execute(database.db);console.log(rows[0])
 const t=performance.now();await saver.deleteThread(thread);console.log('deleteThread of 1000',(performance.now()-t).toFixed(1))}
await sql`drop schema tb_quick cascade`.execute(database.db)
await database.close()
