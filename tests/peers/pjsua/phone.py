"""A phone made of PJSUA2: it is told what to do by datagrams to its control port, and says what happens on standard output, a
line each, between PJSIP's own logs with every message.

Commands: dial URI | ring | answer | hangup | hold | unhold | update | dtmf DIGITS | refer URI | join
All are about its last call, but for the last one: it hands whom it talks with in its first call over to its second one.
"""

import argparse
import os
import socket

import pjsua2 as pj

PRACK = {"no": pj.PJSUA_100REL_NOT_USED, "optional": pj.PJSUA_100REL_OPTIONAL, "mandatory": pj.PJSUA_100REL_MANDATORY}
TIMER = {
    "no": pj.PJSUA_SIP_TIMER_INACTIVE,
    "optional": pj.PJSUA_SIP_TIMER_OPTIONAL,
    "required": pj.PJSUA_SIP_TIMER_REQUIRED,
    "always": pj.PJSUA_SIP_TIMER_ALWAYS,
}


def say(*words):
    # In one piece: PJSIP's media threads write there too.
    os.write(1, (" ".join(["phone:", *map(str, words)]) + "\n").encode())


class Call(pj.Call):
    def onCallState(self, prm):
        info = self.getInfo()
        say("state", info.stateText, info.lastStatusCode, info.lastReason)

    def onDtmfDigit(self, prm):
        say("dtmf", prm.digit)

    def onCallTransferStatus(self, prm):
        say("transfer", prm.statusCode, prm.reason, "final" if prm.finalNotify else "")
        # The gateway says goodbye.
        prm.cont = True


class Account(pj.Account):
    def __init__(self, phone):
        super().__init__()
        self.phone = phone

    def onIncomingCall(self, prm):
        self.phone.call = Call(self, prm.callId)
        self.phone.calls.append(self.phone.call)
        say("incoming", self.phone.call.getInfo().remoteUri)
        if self.phone.options.willing:
            self.phone.command("answer")


class Phone:
    def __init__(self, options):
        self.options = options
        self.call = None
        self.calls = []
        self.endpoint = pj.Endpoint()
        self.endpoint.libCreate()
        config = pj.EpConfig()
        config.uaConfig.threadCnt = 0
        config.uaConfig.mainThreadOnly = True
        config.logConfig.msgLogging = 1
        config.logConfig.level = config.logConfig.consoleLevel = 5
        self.endpoint.libInit(config)
        self.endpoint.audDevManager().setNullDev()
        transport = pj.TransportConfig()
        transport.port = options.port
        transport.boundAddress = options.address
        self.endpoint.transportCreate(pj.PJSIP_TRANSPORT_UDP, transport)
        self.endpoint.libStart()
        account = pj.AccountConfig()
        account.idUri = f"sip:{options.user}@{options.address}"
        if options.login:
            user, password = options.login.split(":")
            account.sipConfig.authCreds.append(pj.AuthCredInfo("digest", "*", user, 0, password))
        account.callConfig.prackUse = PRACK[options.prack]
        account.callConfig.timerUse = TIMER[options.timer]
        account.callConfig.timerMinSESec = options.min
        account.callConfig.timerSessExpiresSec = options.seconds
        account.mediaConfig.transportConfig.boundAddress = options.address
        account.mediaConfig.transportConfig.port = options.media
        self.account = Account(self)
        self.account.create(account)

    def command(self, text):
        verb, _, what = text.partition(" ")
        prm = pj.CallOpParam(True)
        if verb == "dial":
            self.call = Call(self.account)
            self.calls.append(self.call)
            self.call.makeCall(what, prm)
        elif verb == "ring":
            prm.statusCode = pj.PJSIP_SC_RINGING
            self.call.answer(prm)
        elif verb == "answer":
            prm.statusCode = pj.PJSIP_SC_OK
            self.call.answer(prm)
        elif verb == "hangup":
            self.call.hangup(pj.CallOpParam())
        elif verb == "hold":
            self.call.setHold(pj.CallOpParam())
        elif verb == "unhold":
            prm.opt.flag = pj.PJSUA_CALL_UNHOLD
            self.call.reinvite(prm)
        elif verb == "update":
            self.call.update(prm)
        elif verb == "dtmf":
            dtmf = pj.CallSendDtmfParam()
            dtmf.method = pj.PJSUA_DTMF_METHOD_SIP_INFO
            dtmf.digits = what
            self.call.sendDtmf(dtmf)
        elif verb == "refer":
            self.call.xfer(what, pj.CallOpParam())
        elif verb == "join":
            first, second = self.calls
            first.xferReplaces(second, pj.CallOpParam())
        else:
            raise ValueError(f"unknown command '{text}'")

    def run(self):
        control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        control.bind((self.options.address, self.options.control))
        control.setblocking(False)
        say("ready")
        while True:
            self.endpoint.libHandleEvents(10)
            try:
                text = control.recv(4096).decode()
            except BlockingIOError:
                continue
            say("told", text)
            try:
                self.command(text)
            except pj.Error as error:
                say("failed", error.info())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--user", required=True)
    parser.add_argument("--port", type=int, default=5060)
    parser.add_argument("--control", type=int, default=4444)
    parser.add_argument("--media", type=int, default=4000)
    parser.add_argument("--prack", choices=PRACK, default="no")
    parser.add_argument("--timer", choices=TIMER, default="no")
    parser.add_argument("--min", type=int, default=90)
    parser.add_argument("--seconds", type=int, default=1800)
    parser.add_argument("--login", help="USER:PASSWORD for whoever wants to know who calls")
    parser.add_argument("--willing", action="store_true")
    Phone(parser.parse_args()).run()


main()
