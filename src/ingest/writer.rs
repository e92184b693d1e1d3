//! The one writer: groups what has arrived while the last commit was being synced (no timer, no
//! fixed batch), commits it, and only then answers.
//!
//! While the store is away nothing is answered and nothing is dropped: the batch is tried again
//! until it commits. A batch that fails for its content is halved until the culprit stands alone
//! and is refused; the others commit. A commit of unknown outcome is followed by a reload, and by a look
//! at what it would have stored: the batch that was committed is not tried again ([`Duda`]).

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::{counter, gauge, histogram};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::batcher::{Ajustes, Encargo, Pendiente, Salud, Trabajo};
use super::duda::Duda;
use super::lote::{AlertaTocada, Clave, Hecho, Lote};
use super::mensaje::{Mensaje, Resolver, Resuelta, Resultado};
use super::pulso::Pulso;
use super::reenvios::{Reenvios, Ya};
use super::reloj::Reloj;
use super::vivo::Vivo;
use crate::alertas;
use crate::domain::{Accion, Alerta, EstadoAlerta, Lectura, Motivo, Rechazo, SensorRef, Timestamp, Variable};
use crate::realtime::rutas::{Preparada, Salida};
use crate::realtime::{Evento, Hub, Que, Rutas};
use crate::store::lecturas::Fila;
use crate::store::mqtt::Cambio;
use crate::store::{self, Store};

/// Waits between tries while the store is away: from, to.
const ESPERA: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

pub(super) struct Writer {
    store: Store,
    hub: Hub,
    rutas: Rutas,
    reloj: Arc<Reloj>,
    ajustes: Ajustes,
    vivo: Vivo,
    /// What `vivo` knows may have been overtaken by a commit whose outcome is not known.
    dudoso: bool,
    salud: watch::Sender<Salud>,
    pulso: Arc<Pulso>,
}

impl Writer {
    pub(super) fn new(
        store: Store,
        (hub, rutas): (Hub, Rutas),
        reloj: Arc<Reloj>,
        ajustes: Ajustes,
        vivo: Vivo,
        (salud, pulso): (watch::Sender<Salud>, Arc<Pulso>),
    ) -> Self {
        Self { store, hub, rutas, reloj, ajustes, vivo, dudoso: false, salud, pulso }
    }

    /// Works until `drena` is cancelled and what was taken before is done.
    pub(super) async fn run(mut self, mut llegadas: mpsc::Receiver<Trabajo>, drena: CancellationToken) {
        let mut trabajos = Vec::new();
        let pulso = self.pulso.clone();
        loop {
            pulso.late();
            tokio::select! {
                biased;
                () = drena.cancelled(), if !llegadas.is_closed() => llegadas.close(),
                n = llegadas.recv_many(&mut trabajos, self.ajustes.lote) => {
                    if n == 0 {
                        return;
                    }
                    gauge!("alertrace_ingest_queue").set(u32::try_from(llegadas.len()).unwrap_or(u32::MAX));
                    self.atiende(std::mem::take(&mut trabajos)).await;
                }
                () = pulso.preguntado() => {}
            }
        }
    }

    /// What was received together: runs of messages in batches, commands in their turn.
    async fn atiende(&mut self, trabajos: Vec<Trabajo>) {
        let (mut lote, mut peso) = (Vec::with_capacity(trabajos.len()), 0);
        for trabajo in trabajos {
            match trabajo {
                Trabajo::Guardar(pendiente) => {
                    peso += pendiente.peso();
                    lote.push(pendiente);
                    if peso >= self.ajustes.lote {
                        self.confirma(std::mem::take(&mut lote)).await;
                        peso = 0;
                    }
                }
                orden => {
                    self.confirma(std::mem::take(&mut lote)).await;
                    peso = 0;
                    self.ordena(orden).await;
                }
            }
        }
        self.confirma(lote).await;
    }

    async fn ordena(&mut self, orden: Trabajo) {
        // Whoever asked may have gone: then nobody hears the answer, which is no error.
        match orden {
            Trabajo::Guardar(_) => {}
            Trabajo::Resolver(pedido, responde) => {
                let resuelta = self.resuelve(pedido).await;
                let _ = responde.send(resuelta);
            }
            Trabajo::Umbrales(cambiados, responde) => {
                let recargados = self.vivo.umbrales.recarga(&self.store, cambiados).await;
                // Stored they are, whatever whoever asked is told: nothing is judged by the old ones.
                self.dudoso |= recargados.is_err();
                let _ = responde.send(recargados);
            }
            Trabajo::Abrir(pedido, responde) => {
                let (quien, alerta) = *pedido;
                let _ = responde.send(self.abre(quien, alerta).await);
            }
            Trabajo::Retenciones(responde) => {
                let _ = responde.send(self.vivo.recarga_retenciones(&self.store).await);
            }
            Trabajo::Retira(id_sensor, responde) => {
                self.vivo.retira(id_sensor);
                let _ = responde.send(());
            }
            Trabajo::Reincorpora(id_sensor, responde) => {
                let _ = responde.send(self.vivo.reincorpora(&self.store, id_sensor).await);
            }
        }
    }

    /// Commits a batch, however long that takes, and answers it.
    async fn confirma(&mut self, mut lote: Vec<Pendiente>) {
        lote.retain(|p| !p.abandonado());
        if lote.is_empty() {
            return;
        }
        if lote.iter().any(|p| p.mensaje().is_some()) {
            self.espera_reloj().await;
        }
        let mut partes = VecDeque::from([lote]);
        let mut espera = ESPERA.0;
        // What is remembered has been read again since the last commit.
        let mut releido = false;
        // Of the part that is first, from a commit of unknown outcome until the next turn to write.
        let mut duda = None;
        while let Some(mut parte) = partes.pop_front() {
            if duda.is_none() {
                parte.retain(|p| !p.abandonado());
            }
            if parte.is_empty() {
                continue;
            }
            self.pulso.late();
            let desde = Instant::now();
            let span = tracing::info_span!("batch", messages = parte.len());
            match self.intenta(&mut parte, &mut duda).instrument(span).await {
                Ok(hecho) => {
                    histogram!("alertrace_commit_seconds").record(desde.elapsed());
                    #[expect(clippy::cast_precision_loss, reason = "a batch is far below 2^52")]
                    histogram!("alertrace_commit_messages").record(parte.len() as f64);
                    espera = ESPERA.0;
                    releido = false;
                    self.salud.send_if_modified(|s| std::mem::replace(s, Salud::Listo) != Salud::Listo);
                    self.cierra(parte, hecho).await;
                }
                // An alert that is open already, which we do not know of: the readings are good.
                Err(store::Error::Conflict { .. }) if !releido => {
                    (self.dudoso, releido) = (true, true);
                    partes.push_front(parte);
                }
                Err(e) if e.de_contenido() && parte.len() > 1 && duda.is_none() => {
                    let cola = parte.split_off(parte.len() / 2);
                    partes.push_front(cola);
                    partes.push_front(parte);
                }
                Err(e) => {
                    // The commit may have succeeded all the same.
                    self.dudoso = true;
                    // A refusal is an answer only once it is recorded; a database that cannot record
                    // one is away, whatever it says of the content.
                    let registrado = if e.de_contenido() { Some(self.registra(&parte).await) } else { None };
                    let e = match registrado {
                        Some(Ok(())) => {
                            rechaza(parte, e);
                            continue;
                        }
                        Some(Err(e)) => e,
                        None => e,
                    };
                    self.sin_almacen(&e);
                    partes.push_front(parte);
                    self.pulso.duerme(espera).await;
                    espera = (espera * 2).min(ESPERA.1);
                }
            }
        }
    }

    fn sin_almacen(&self, e: &store::Error) {
        counter!("alertrace_store_errors_total", "of" => "writer").increment(1);
        let nueva = Salud::SinAlmacen(e.to_string());
        if self.salud.send_if_modified(|s| std::mem::replace(s, nueva.clone()) != nueva) {
            tracing::error!(error = %e, "the store is away; nothing is acknowledged until it is back");
        }
    }

    /// Records what the database will not take, for whoever looks for it.
    async fn registra(&self, parte: &[Pendiente]) -> store::Result<()> {
        let mut tx = self.store.write_first().await?;
        let mensajes = parte.iter().filter_map(Pendiente::mensaje);
        let rechazos: Vec<_> = mensajes
            .flat_map(|m| no_admitidas(m).into_iter().map(|r| (m.sensor.id_sensor, m.recibido, r)))
            .collect();
        match self.anota_rechazos(&mut tx, &rechazos).await {
            // The sensor is gone, and its refusals with it.
            Err(store::Error::Refused(_)) => return Ok(()),
            hecho => hecho?,
        }
        tx.commit().await
    }

    async fn anota_rechazos(
        &self,
        tx: &mut store::Tx,
        rechazos: &[(i64, Timestamp, Rechazo)],
    ) -> store::Result<()> {
        store::rechazos::record(tx, rechazos).await?;
        let sensores: BTreeSet<i64> = rechazos.iter().map(|(id_sensor, ..)| *id_sensor).collect();
        // More than came: where fewer are kept than before, the others go little by little.
        let como_mucho = i64::try_from(rechazos.len() * 2).unwrap_or(i64::MAX);
        store::rechazos::trim(tx, &sensores, self.ajustes.rechazos_por_sensor, como_mucho).await
    }

    /// Reads again what a commit of unknown outcome may have changed, before anything builds on it.
    async fn despeja(&mut self) -> store::Result<()> {
        if self.dudoso {
            self.vivo.reload(&self.store).await?;
            self.reloj.guardada(self.vivo.mas_nueva);
            self.dudoso = false;
        }
        Ok(())
    }

    /// One try: settle the moments, see what is stored already, evaluate, write, commit. None of that when the
    /// last try, of which there is `duda`, turns out to be stored.
    async fn intenta(&mut self, parte: &mut Vec<Pendiente>, duda: &mut Option<Duda>) -> store::Result<Hecho> {
        let mut tx = self.store.write_first().await?;
        // Not before: the commit of unknown outcome may have been on its way until the turn was ours.
        self.despeja().await?;
        if let Some(dudosa) = duda {
            let consta = dudosa.testigo.consta(&mut tx).await?;
            if let Some(dudosa) = duda.take().filter(|_| consta) {
                tracing::info!("a commit of unknown outcome was one");
                return Ok(dudosa.hecho);
            }
            parte.retain(|p| !p.abandonado());
        }
        let existentes = self.fija_momentos(&mut tx, parte).await?;
        let mut lote = Lote::new(existentes);
        let (mut cambios, mut por_decir): (Vec<&Cambio>, Vec<Preparada>) = (Vec::new(), Vec::new());
        for pendiente in parte.iter() {
            match &pendiente.encargo {
                Encargo::Mensaje(mensaje, _) => {
                    if lote.agrega(&self.vivo, mensaje).aceptadas > 0 {
                        cambios.extend(&mensaje.al_aceptar);
                        let payload = mensaje.por_decir.clone();
                        por_decir.extend(payload.and_then(|p| self.rutas.lectura(&mensaje.sensor, p)));
                    }
                }
                Encargo::Cambios(suyos, _) => cambios.extend(&suyos.cambios),
            }
        }
        let mut paginas = lote.paginas() + cambios.len();
        store::mqtt::apply(&mut tx, cambios).await?;
        let filas = lote.filas();
        store::lecturas::write(&mut tx, &filas).await?;
        // Held to after the commit: nobody takes a mark between it and our remembering it.
        let mut marcas = self.store.marcas().lock().await;
        let por_marcar = marcas.faltan(filas.iter().map(|f| (f.id_sensor, f.ts.hora())));
        store::horas::mark(&mut tx, &por_marcar).await?;
        store::lecturas::write_latest(&mut tx, &lote.ultimas()).await?;
        anota_alertas(&mut tx, &mut lote.tocadas).await?;
        self.anota_rechazos(&mut tx, &lote.rechazos).await?;
        let mut hecho = lote.hecho();
        por_decir.extend(hecho.eventos.iter().filter_map(|e| self.por_decir(e)));
        let cambios;
        (cambios, hecho.salidas) = reune(por_decir);
        store::mqtt::apply(&mut tx, &cambios).await?;
        paginas += cambios.len();
        if let Err(e) = tx.commit().await {
            if matches!(e, store::Error::Undecided(_)) {
                *duda = Duda::new(hecho, filas);
            }
            return Err(e);
        }
        marcas.recuerda(por_marcar);
        drop(marcas);
        self.store.wrote(paginas as u64);
        Ok(hecho)
    }

    /// What subscribers are to be told of an event: of alerts. Readings are told by whoever took them in.
    fn por_decir(&self, evento: &Evento) -> Option<Preparada> {
        matches!(evento.que, Que::Alerta(..)).then(|| self.rutas.alerta(evento)).flatten()
    }

    /// Commits, with what subscribers are to be told of `eventos`, and then tells everybody. `dudoso` when
    /// nobody knows whether it was committed, and `testigo`, an alert as it was not before, does not show it.
    async fn confirma_eventos(
        &mut self,
        mut tx: store::Tx,
        eventos: Vec<Evento>,
        testigo: Option<&Alerta>,
    ) -> store::Result<()> {
        let (cambios, salidas) = reune(eventos.iter().filter_map(|e| self.por_decir(e)));
        store::mqtt::apply(&mut tx, &cambios).await?;
        if let Err(e) = tx.commit().await {
            let por_saber = testigo.filter(|_| matches!(e, store::Error::Undecided(_)));
            if !self.consta(por_saber).await {
                self.dudoso = true;
                return Err(e);
            }
        }
        for evento in eventos {
            self.hub.send(evento);
        }
        for salida in salidas {
            salida.sale().await;
        }
        Ok(())
    }

    /// Whether an alert is stored like this, once no commit is under way; `false` = nobody can say now.
    async fn consta(&self, testigo: Option<&Alerta>) -> bool {
        let Some(testigo) = testigo else { return false };
        let Ok(mut tx) = self.store.write_first().await else { return false };
        let guardada = store::alertas::by_id(&mut tx, testigo.id_alerta).await;
        guardada.is_ok_and(|guardada| guardada.as_ref() == Some(testigo))
    }

    /// Gives every reading its moment, for good: what a device left out is the moment of arrival,
    /// unique per sensor to the microsecond; or, for a redelivery, that of the reading that is
    /// stored already. Answers what is stored under the keys of the batch.
    async fn fija_momentos(&self, tx: &mut store::Tx, parte: &mut [Pendiente]) -> store::Result<Vec<Fila>> {
        // Only a key that is not newer than the sensor's newest can be stored already.
        let mut ultimas: HashMap<i64, Option<Timestamp>> = HashMap::new();
        let mut ultima = |vivo: &Vivo, id| *ultimas.entry(id).or_insert_with(|| vivo.ultima(id));
        let (mut dadas, mut por_mirar): (HashSet<Clave>, Vec<Clave>) = (HashSet::new(), Vec::new());
        for mensaje in parte.iter().filter_map(Pendiente::mensaje) {
            let id = mensaje.sensor.id_sensor;
            for ts in mensaje.lecturas.iter().filter_map(|l| l.ts) {
                if dadas.insert((id, ts)) && ultima(&self.vivo, id).is_some_and(|u| ts <= u) {
                    por_mirar.push((id, ts));
                }
            }
        }
        let mut existentes = store::lecturas::existing(tx, &por_mirar).await?;
        let mut reenvios = Reenvios::default();
        let hay_dup = parte.iter().filter_map(Pendiente::mensaje).any(|m| m.dup);
        for mensaje in parte.iter_mut().filter_map(Pendiente::mensaje_mut) {
            let id = mensaje.sensor.id_sensor;
            for lectura in mensaje.lecturas.iter_mut().filter(|l| l.ts.is_none()) {
                if mensaje.dup {
                    match reenvios.busca(tx, id, &lectura.valores, mensaje.recibido).await? {
                        Some(Ya::EnLote(ts)) => {
                            lectura.ts = Some(ts);
                            continue;
                        }
                        Some(Ya::Guardada(ts)) => {
                            lectura.ts = Some(ts);
                            existentes.push(Fila { id_sensor: id, ts, valores: lectura.valores.clone() });
                            continue;
                        }
                        None => {}
                    }
                }
                let mut ts = mensaje.recibido;
                loop {
                    while dadas.contains(&(id, ts)) {
                        ts = ts.next();
                    }
                    if ultima(&self.vivo, id).is_none_or(|u| ts > u)
                        || store::lecturas::existing(tx, &[(id, ts)]).await?.is_empty()
                    {
                        break;
                    }
                    ts = ts.next();
                }
                dadas.insert((id, ts));
                lectura.ts = Some(ts);
                if hay_dup {
                    reenvios.recuerda(id, &lectura.valores, ts);
                }
            }
        }
        Ok(existentes)
    }

    /// The batch is on disk: take over what it made of the sensors, answer, tell.
    async fn cierra(&mut self, parte: Vec<Pendiente>, hecho: Hecho) {
        self.vivo.confirma(hecho.sensores);
        self.reloj.guardada(self.vivo.mas_nueva);
        let (mut aceptadas, mut duplicadas, mut rechazadas) = (0, 0, 0);
        let mut resultados = hecho.resultados.into_iter();
        let mut mensajes = [0_u64; MENSAJES.len()];
        for pendiente in parte {
            // A session that ended meanwhile hears nothing; its device sends again.
            match pendiente.encargo {
                Encargo::Mensaje(_, responde) => {
                    let resultado = resultados.next().unwrap_or_default();
                    aceptadas += u64::from(resultado.aceptadas);
                    duplicadas += u64::from(resultado.duplicadas);
                    rechazadas += resultado.rechazos.len() as u64;
                    mensajes[por_resultado(&resultado)] += 1;
                    let _ = responde.send(resultado);
                }
                Encargo::Cambios(suyos, responde) => {
                    if let Some(luego) = suyos.luego {
                        luego();
                    }
                    let _ = responde.send(Ok(()));
                }
            }
        }
        for (resultado, n) in MENSAJES.into_iter().zip(mensajes).filter(|(_, n)| *n > 0) {
            counter!("alertrace_ingest_messages_total", "result" => resultado).increment(n);
        }
        counter!("alertrace_readings_total", "result" => "stored").increment(aceptadas);
        counter!("alertrace_readings_total", "result" => "duplicate").increment(duplicadas);
        counter!("alertrace_readings_total", "result" => "refused").increment(rechazadas);
        for evento in hecho.eventos {
            if let Que::Alerta(accion, alerta) = &evento.que {
                tracing::info!(id_alerta = alerta.id_alerta, device_id = %alerta.device_id, tipo = alerta.tipo_alerta,
                    severidad = alerta.severidad.as_str(), accion = ?accion, "an alert changed");
                counter!("alertrace_alerts_total", "action" => nombre(*accion)).increment(1);
            }
            self.hub.send(evento);
        }
        for salida in hecho.salidas {
            salida.sale().await;
        }
    }

    /// Holds readings while the machine's clock cannot be right. Most never come this far: whoever
    /// takes them in asks first ([`super::Ingest::hora`]).
    async fn espera_reloj(&self) {
        while let Err(e) = self.reloj.hora() {
            let nueva = Salud::RelojIncorrecto(e.to_string());
            if self.salud.send_if_modified(|s| std::mem::replace(s, nueva.clone()) != nueva) {
                tracing::error!(motivo = %e, "nothing is acknowledged until the clock is set");
            }
            self.pulso.duerme(Duration::from_secs(1)).await;
        }
    }

    /// A person closes an alert, or says where it stands. If it is resolved while the last reading is still
    /// outside, another opens, one step up; one that is ignored leaves that to the next reading.
    async fn resuelve(&mut self, pedido: Resolver) -> store::Result<Option<Resuelta>> {
        let mut tx = self.store.write_first().await?;
        self.despeja().await?;
        let Some(mut alerta) = store::alertas::by_id(&mut tx, pedido.id_alerta).await? else {
            return Ok(None);
        };
        if !alerta.estado.abierta() {
            return Ok(Some(Resuelta { alerta, nueva: None }));
        }
        let ahora = self.reloj.ahora();
        let antes = alerta.clone();
        let mut dentro = 0;
        if pedido.estado.abierta() {
            dentro = self.vivo.sensor(alerta.id_sensor).abierta(&alerta.tipo_alerta).map_or(0, |a| a.dentro);
        } else {
            alertas::cierra(&mut alerta, ahora);
            alerta.resuelta_por = Some(pedido.por.user_id.clone());
        }
        (alerta.estado, alerta.resuelta) = (pedido.estado, pedido.estado == EstadoAlerta::Resuelta);
        alerta.notas = pedido.notas.unwrap_or(alerta.notas);
        store::alertas::update(&mut tx, &alerta, dentro).await?;
        let mut hecho = store::auditoria::Hecho::cambiado("alerta", alerta.id_alerta, &antes, &alerta);
        if alerta.resuelta {
            hecho = hecho.como("resolver");
        }
        pedido.por.anota(&mut tx, &hecho).await?;
        let quien = SensorRef {
            id_sensor: alerta.id_sensor,
            id_empresa: alerta.id_empresa,
            device_id: alerta.device_id.clone(),
        };
        let mut nueva = alerta.resuelta.then(|| self.persiste(&alerta, &quien, ahora)).flatten();
        if let Some(nueva) = &mut nueva {
            nueva.id_alerta = store::alertas::create(&mut tx, nueva, 0).await?;
        }
        let mut sensor = self.vivo.sensor(alerta.id_sensor);
        sensor.pon(alertas::Abierta { alerta: alerta.clone(), dentro });
        let accion = if alerta.estado.abierta() { Accion::Actualizada } else { Accion::Resuelta };
        let mut eventos = vec![Evento::new(quien.clone(), Que::Alerta(accion, Box::new(alerta.clone())))];
        if let Some(nueva) = &nueva {
            sensor.pon(alertas::Abierta { alerta: nueva.clone(), dentro: 0 });
            eventos.push(Evento::new(quien, Que::Alerta(Accion::Creada, Box::new(nueva.clone()))));
        }
        let testigo = Some(&alerta).filter(|alerta| **alerta != antes);
        self.confirma_eventos(tx, eventos, testigo).await?;
        self.vivo.confirma(HashMap::from([(alerta.id_sensor, sensor)]));
        Ok(Some(Resuelta { alerta, nueva }))
    }

    /// Opens an alert that no reading caused, unless one of its kind is open.
    async fn abre(&mut self, quien: SensorRef, mut alerta: Alerta) -> store::Result<()> {
        // In its turn first: a commit of unknown outcome is over then, and what is read again is what is.
        let mut tx = self.store.write_first().await?;
        self.despeja().await?;
        let mut sensor = self.vivo.sensor(quien.id_sensor);
        if self.vivo.retirado(quien.id_sensor) || sensor.abierta(&alerta.tipo_alerta).is_some() {
            return Ok(());
        }
        alerta.id_alerta = store::alertas::create(&mut tx, &alerta, 0).await?;
        sensor.pon(alertas::Abierta { alerta: alerta.clone(), dentro: 0 });
        let id_sensor = quien.id_sensor;
        let evento = Evento::new(quien, Que::Alerta(Accion::Creada, Box::new(alerta.clone())));
        self.confirma_eventos(tx, vec![evento], Some(&alerta)).await?;
        self.vivo.confirma(HashMap::from([(id_sensor, sensor)]));
        Ok(())
    }

    /// The alert that replaces a resolved one while the last reading is outside.
    fn persiste(&self, alerta: &Alerta, quien: &SensorRef, ahora: Timestamp) -> Option<Alerta> {
        let variable = Variable::new(&alerta.tipo_alerta)?;
        let valor = self.vivo.ultimo_valor(alerta.id_sensor, &variable)?;
        let umbral = self.vivo.umbrales(quien).de(&variable)?;
        let medida = alertas::severidad(umbral, valor)?;
        let severidad = medida.max(alerta.severidad.siguiente());
        Some(alertas::nueva(quien, &variable, umbral, valor, ahora, severidad))
    }
}

/// Writes what a batch made of alerts; those that are new get their keys.
async fn anota_alertas(tx: &mut store::Tx, tocadas: &mut [AlertaTocada]) -> store::Result<()> {
    let de = |nueva| {
        let suyas = tocadas.iter().filter(move |t| t.nueva == nueva);
        suyas.map(|t| (&t.abierta.alerta, t.abierta.dentro)).collect::<Vec<_>>()
    };
    // Those that close first: another of the same sensor and variable may have opened since.
    store::alertas::update_all(tx, &de(false)).await?;
    let claves = store::alertas::create_all(tx, &de(true)).await?;
    for (tocada, clave) in tocadas.iter_mut().filter(|t| t.nueva).zip(claves) {
        tocada.abierta.alerta.id_alerta = clave;
    }
    Ok(())
}

/// What is to be committed of messages, and the messages.
fn reune(preparadas: impl IntoIterator<Item = Preparada>) -> (Vec<Cambio>, Vec<Salida>) {
    let (cambios, salidas): (Vec<_>, Vec<_>) = preparadas.into_iter().unzip();
    (cambios.into_iter().flatten().collect(), salidas)
}

/// What became of messages, as the metrics name it.
const MENSAJES: [&str; 4] = ["stored", "partial", "duplicate", "refused"];

/// Its place in [`MENSAJES`].
fn por_resultado(r: &Resultado) -> usize {
    match (r.aceptadas, r.duplicadas, r.rechazos.is_empty()) {
        (0, 0, _) => 3,
        (0, _, true) => 2,
        (_, _, true) => 0,
        (_, _, false) => 1,
    }
}

/// What becomes of a message that the database will never take.
fn no_admitidas(mensaje: &Mensaje) -> Vec<Rechazo> {
    let de = |l: &Lectura| Rechazo::new(Motivo::Almacen, None, l.ts, &l.valores.to_json());
    mensaje.rechazos.iter().cloned().chain(mensaje.lecturas.iter().map(de)).collect()
}

/// What the database will never take, once that is recorded: answered as refused.
fn rechaza(parte: Vec<Pendiente>, e: store::Error) {
    let mut e = Some(e);
    for pendiente in parte {
        match pendiente.encargo {
            Encargo::Mensaje(mensaje, responde) => {
                tracing::warn!(device_id = %mensaje.sensor.device_id, error = ?e, "a message was refused by the database");
                let rechazos = no_admitidas(&mensaje);
                counter!("alertrace_readings_total", "result" => "refused").increment(rechazos.len() as u64);
                counter!("alertrace_ingest_messages_total", "result" => "refused").increment(1);
                let _ = responde.send(Resultado { rechazos, ..Resultado::default() });
            }
            Encargo::Cambios(_, responde) => {
                tracing::error!(error = ?e, "what the broker keeps was refused by the database");
                let _ = responde.send(e.take().map_or(Ok(()), Err));
            }
        }
    }
}

const fn nombre(accion: Accion) -> &'static str {
    match accion {
        Accion::Creada => "created",
        Accion::Actualizada => "raised",
        Accion::Resuelta => "resolved",
    }
}
