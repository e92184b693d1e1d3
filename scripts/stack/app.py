"""What many sites run instead, for `scripts/compare` to measure: Mosquitto -> FastAPI -> PostgreSQL -> WebSocket.

For each message: find the sensor, insert the reading, look at its threshold, make an alert unless there is one
of the last two hours, commit, tell every open WebSocket. MODE=orm does that with SQLAlchemy, one session a
message, as most such programs do; MODE=async with asyncpg, up to thirty messages at a time, each its own
transaction. Mosquitto has acknowledged the message before any of it.

    MODE=orm DB=postgresql://… MQTT_PORT=1883 SENSORS=100 uvicorn app:app
"""

import asyncio
import contextlib
import datetime
import os

import aiomqtt
import asyncpg
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from pydantic import BaseModel
from sqlalchemy import BigInteger, DateTime, Double, ForeignKey, Index, Text, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

VARIABLES = ("temperatura", "humedad_aire", "humedad_suelo", "ph_suelo", "radiacion_solar")
AT_A_TIME = 30
QUIET = datetime.timedelta(hours=2)
DB = os.environ["DB"]


class Base(DeclarativeBase):
    type_annotation_map = {int: BigInteger, str: Text, float: Double, datetime.datetime: DateTime(timezone=True)}


class Sensor(Base):
    __tablename__ = "sensores"
    id_sensor: Mapped[int] = mapped_column(primary_key=True)
    device_id: Mapped[str] = mapped_column(unique=True)
    estado: Mapped[str] = mapped_column(default="activo")


class Lectura(Base):
    __tablename__ = "lecturas"
    __table_args__ = (Index("lecturas_de_un_sensor", "id_sensor", "timestamp"),)
    id_lectura: Mapped[int] = mapped_column(primary_key=True)
    id_sensor: Mapped[int] = mapped_column(ForeignKey("sensores.id_sensor"))
    timestamp: Mapped[datetime.datetime]
    temperatura: Mapped[float | None]
    humedad_aire: Mapped[float | None]
    humedad_suelo: Mapped[float | None]
    ph_suelo: Mapped[float | None]
    radiacion_solar: Mapped[float | None]


class Umbral(Base):
    __tablename__ = "umbrales"
    variable: Mapped[str] = mapped_column(primary_key=True)
    minimo: Mapped[float]
    maximo: Mapped[float]


class Alerta(Base):
    __tablename__ = "alertas"
    __table_args__ = (Index("alertas_de_un_sensor", "id_sensor", "fecha"),)
    id_alerta: Mapped[int] = mapped_column(primary_key=True)
    id_sensor: Mapped[int]
    variable: Mapped[str]
    estado: Mapped[str] = mapped_column(default="pendiente")
    fecha: Mapped[datetime.datetime]


class Message(BaseModel):
    timestamp: datetime.datetime
    temperatura: float | None = None
    humedad_aire: float | None = None
    humedad_suelo: float | None = None
    ph_suelo: float | None = None
    radiacion_solar: float | None = None


class Orm:
    """A session of SQLAlchemy a message, one message after the other."""

    at_a_time = 1

    async def open(self):
        self.engine = create_engine(DB.replace("postgresql:", "postgresql+psycopg2:", 1))

    async def store(self, device_id, message):
        now = datetime.datetime.now(datetime.UTC)
        with Session(self.engine) as db:
            sensor = db.scalars(select(Sensor).where(Sensor.device_id == device_id)).one_or_none()
            if sensor is None:
                return False
            db.add(Lectura(id_sensor=sensor.id_sensor, **message.model_dump()))
            limit = db.get(Umbral, "temperatura")
            value = message.temperatura
            if limit and value is not None and not limit.minimo <= value <= limit.maximo:
                recent = select(Alerta.id_alerta).where(Alerta.id_sensor == sensor.id_sensor, Alerta.fecha > now - QUIET)
                if db.scalar(recent.limit(1)) is None:
                    db.add(Alerta(id_sensor=sensor.id_sensor, variable="temperatura", fecha=now))
            db.commit()
        return True


class Async:
    """asyncpg, a transaction a message, as many messages at a time as there are connections."""

    at_a_time = AT_A_TIME
    insert = (
        f"INSERT INTO lecturas (id_sensor, timestamp, {', '.join(VARIABLES)}) "
        f"VALUES ($1, $2, {', '.join(f'${n}' for n in range(3, 3 + len(VARIABLES)))})"
    )

    async def open(self):
        self.pool = await asyncpg.create_pool(DB, min_size=AT_A_TIME, max_size=AT_A_TIME)

    async def store(self, device_id, message):
        now = datetime.datetime.now(datetime.UTC)
        async with self.pool.acquire() as db, db.transaction():
            id_sensor = await db.fetchval("SELECT id_sensor FROM sensores WHERE device_id = $1", device_id)
            if id_sensor is None:
                return False
            values = [getattr(message, variable) for variable in VARIABLES]
            await db.execute(self.insert, id_sensor, message.timestamp, *values)
            limit = await db.fetchrow("SELECT minimo, maximo FROM umbrales WHERE variable = 'temperatura'")
            value = message.temperatura
            if limit and value is not None and not limit["minimo"] <= value <= limit["maximo"]:
                recent = "SELECT 1 FROM alertas WHERE id_sensor = $1 AND fecha > $2 LIMIT 1"
                if await db.fetchval(recent, id_sensor, now - QUIET) is None:
                    await db.execute(
                        "INSERT INTO alertas (id_sensor, variable, estado, fecha) VALUES ($1, 'temperatura', 'pendiente', $2)",
                        id_sensor,
                        now,
                    )
        return True


sockets = set()


async def handle(store, topic, payload):
    device_id = topic.split("/")[1]
    message = Message.model_validate_json(payload)
    if not await store.store(device_id, message):
        return
    event = {"type": "sensor_update", "device_id": device_id, "data": message.model_dump(mode="json")}
    for socket in list(sockets):
        try:
            await socket.send_json(event)
        except (RuntimeError, WebSocketDisconnect):
            sockets.discard(socket)


async def consume(client, store):
    async with asyncio.TaskGroup() as tasks:
        room = asyncio.Semaphore(store.at_a_time)

        async def one(message):
            try:
                await handle(store, str(message.topic), message.payload)
            finally:
                room.release()

        async for message in client.messages:
            await room.acquire()
            if store.at_a_time == 1:
                await one(message)
            else:
                tasks.create_task(one(message))


def prepare():
    engine = create_engine(DB.replace("postgresql:", "postgresql+psycopg2:", 1))
    Base.metadata.create_all(engine)
    with Session(engine) as db:
        db.add(Umbral(variable="temperatura", minimo=10, maximo=35))
        db.add_all(Sensor(device_id=f"LOAD-{n}") for n in range(int(os.environ.get("SENSORS", "100"))))
        db.commit()
    engine.dispose()


@contextlib.asynccontextmanager
async def lifespan(_app):
    prepare()
    store = {"orm": Orm, "async": Async}[os.environ.get("MODE", "orm")]()
    await store.open()
    async with aiomqtt.Client("127.0.0.1", int(os.environ.get("MQTT_PORT", "1883"))) as client:
        await client.subscribe("sensores/+/data", qos=1)
        task = asyncio.create_task(consume(client, store))
        yield
        task.cancel()


app = FastAPI(lifespan=lifespan)


@app.get("/health")
def health():
    return {"status": "ok"}


@app.websocket("/sensores/live")
async def live(socket: WebSocket):
    await socket.accept()
    sockets.add(socket)
    try:
        while True:
            await socket.receive_text()
    except WebSocketDisconnect:
        sockets.discard(socket)
