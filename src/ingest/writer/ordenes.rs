//! What people and other parts ask of the writer between batches, each in its turn.

use std::collections::HashMap;

use super::Writer;
use super::intento::reune;
use crate::alertas;
use crate::domain::{Accion, Alerta, EstadoAlerta, SensorRef, Timestamp, Variable};
use crate::ingest::batcher::Trabajo;
use crate::ingest::mensaje::{Resolver, Resuelta};
use crate::realtime::{Evento, Que};
use crate::store;

impl Writer {
    pub(super) async fn ordena(&mut self, orden: Trabajo) {
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
